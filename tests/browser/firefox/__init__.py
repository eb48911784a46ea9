"""Journeys in the system's Firefox. They are in their own folder, so that a quick run can leave them out."""
