#!/bin/sh
# Start one Kafka node on a machine without a container engine, wait until it serves, write its pid.
#
#   POOL_KAFKA_HOME=/srv/kafka deploy/kafka/start.sh
#
# $POOL_KAFKA_HOME/tls/broker.pem (PKCS#8 key, then certificate; mode 0600) and tls/ca.pem must be there: see README.md.
# The first start formats the data folder. Stop with stop.sh. Settings, all from the environment:
#   POOL_KAFKA_HOST         name or address that clients and the certificate know   localhost
#   POOL_KAFKA_PORT, POOL_KAFKA_CONTROLLER_PORT                                     9092, 9093
#   POOL_KAFKA_NODE         number of this node                                     1
#   POOL_KAFKA_CONTROLLERS  host:port of every controller, separated by commas      this one
#   POOL_KAFKA_REPLICATION, POOL_KAFKA_MIN_INSYNC                                   1, 1 (production: 3, 2)
#   POOL_KAFKA_SESSION_MS   milliseconds without a heartbeat until a node counts as dead 9000
#   POOL_KAFKA_CLUSTER      cluster id for the first start                          a random one
#   POOL_KAFKA_JVM          options of the Java machine                             -Xmx1g
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
: "${POOL_KAFKA_HOME:?set it to the folder of data, certificates, log and pid}"
home=$POOL_KAFKA_HOME
host=${POOL_KAFKA_HOST:-localhost}
port=${POOL_KAFKA_PORT:-9092}
controller_port=${POOL_KAFKA_CONTROLLER_PORT:-9093}
pid_file=$home/kafka.pid
log=$home/kafka.log

export POOL_KAFKA_NODE="${POOL_KAFKA_NODE:-1}"
export POOL_KAFKA_CONTROLLERS="${POOL_KAFKA_CONTROLLERS:-$host:$controller_port}"
export POOL_KAFKA_REPLICATION="${POOL_KAFKA_REPLICATION:-1}"
export POOL_KAFKA_MIN_INSYNC="${POOL_KAFKA_MIN_INSYNC:-1}"
export POOL_KAFKA_SESSION_MS="${POOL_KAFKA_SESSION_MS:-9000}"
export POOL_KAFKA_LISTENERS="GATEWAY://$host:$port,CONTROLLER://$host:$controller_port"
export POOL_KAFKA_ADVERTISED="GATEWAY://$host:$port,CONTROLLER://$host:$controller_port"
export POOL_KAFKA_DATA="$home/data"
export POOL_KAFKA_KEYSTORE="$home/tls/broker.pem"
export POOL_KAFKA_TRUSTSTORE="$home/tls/ca.pem"

[ -d "$here/lib" ] || { echo "no $here/lib: run  mvn -q -B -f $here/pom.xml dependency:copy-dependencies" >&2; exit 2; }
[ -f "$POOL_KAFKA_KEYSTORE" ] && [ -f "$POOL_KAFKA_TRUSTSTORE" ] || {
    echo "no broker.pem or no ca.pem in $home/tls; see $here/README.md" >&2; exit 2; }
if [ -f "$pid_file" ] && tr '\0' ' ' <"/proc/$(cat "$pid_file")/cmdline" 2>/dev/null | grep -q "kafka.Kafka $here/"; then
    echo "already running with pid $(cat "$pid_file")"; exit 0
fi

java_options="${POOL_KAFKA_JVM:--Xmx1g} -Dlog4j2.configurationFile=$here/log4j2.yaml"
umask 077
if [ ! -f "$POOL_KAFKA_DATA/meta.properties" ]; then
    mkdir -p "$POOL_KAFKA_DATA"
    # Not with "-" in front (one id in 64 of this alphabet): every Kafka tool would take it for an option.
    cluster=${POOL_KAFKA_CLUSTER:-$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=' | sed 's/^-/A/')}
    # shellcheck disable=SC2086  # the options are words
    java $java_options -cp "$here/lib/*" kafka.tools.StorageTool format --standalone -t "$cluster" \
        -c "$here/server.properties" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
fi

touch "$log"
before=$(wc -c <"$log")
# shellcheck disable=SC2086
nohup java $java_options -cp "$here/lib/*" kafka.Kafka "$here/server.properties" >>"$log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$pid_file"
waited=0
until tail -c "+$((before + 1))" "$log" | grep -q "Kafka Server started"; do
    if ! kill -0 "$pid" 2>/dev/null || [ "$waited" -ge 600 ]; then
        echo "Kafka did not start; the end of $log:" >&2
        tail -n 20 "$log" >&2
        exit 1
    fi
    sleep 0.1
    waited=$((waited + 1))
done
echo "Kafka serves $host:$port with pid $pid"
