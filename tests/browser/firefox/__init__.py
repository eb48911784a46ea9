"""Journeys in the system's Firefox. A folder of its own, so that a quick run can leave it to a whole one."""
