#!/bin/sh
# Run a command, and beside it the process that serves its counts to Prometheus. They are files in a folder of this
# container, under the numbers of its processes, so another container could not add them up. In Kubernetes a container that
# is started again keeps the folder, and the numbers come again: the gauges of processes that are gone would stay.
rm -f "${METRICS_FOLDER:?}"/*.db
while :; do
    python manage.py metrics
    sleep 2
done &
exec "$@"
