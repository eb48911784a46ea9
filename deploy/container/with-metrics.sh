#!/bin/sh
# Run a command, and beside it the process that serves its counts to Prometheus. They are files in a folder of this
# container, under the numbers of its processes, so another container could not add them up.
while :; do
    python manage.py metrics
    sleep 2
done &
exec "$@"
