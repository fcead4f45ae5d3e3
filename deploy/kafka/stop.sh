#!/bin/sh
# Stop the node that start.sh started, by the pid it wrote; never by name.
#
#   POOL_KAFKA_HOME=/srv/kafka deploy/kafka/stop.sh
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
: "${POOL_KAFKA_HOME:?set it to the folder that start.sh was given}"
pid_file=$POOL_KAFKA_HOME/kafka.pid
[ -f "$pid_file" ] || { echo "no $pid_file: not running"; exit 0; }
pid=$(cat "$pid_file")
if ! tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "kafka.Kafka $here/"; then
    # The number may belong to another process by now.
    rm -f "$pid_file"
    echo "pid $pid is not this Kafka: not running"
    exit 0
fi
kill "$pid"
waited=0
while kill -0 "$pid" 2>/dev/null; do
    [ "$waited" -lt 600 ] || { echo "pid $pid has not ended within 60 s; its log tells why" >&2; exit 1; }
    sleep 0.1
    waited=$((waited + 1))
done
rm -f "$pid_file"
echo "stopped"
