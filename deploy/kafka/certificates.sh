#!/bin/sh
# Make Kafka's own certificate authority and the two certificates it ever signs: the brokers' and the gateway's.
#
#   deploy/kafka/certificates.sh /srv/kafka/tls [name-or-address …]
#
# This authority must never be the one that issues certificates to departments: Kafka knows its users by the subject
# of a certificate of this authority, so whoever signs here decides who the gateway is. Keep ca.key off the machine
# that runs Kafka. What exists is kept; certificates live 365 days, so run it again in time with a new folder.
set -eu
folder=${1:?name the folder}
shift
umask 077
mkdir -p "$folder"
cd "$folder"
organisation="Data Exchange Pool Kafka"

names="DNS:localhost,IP:127.0.0.1,DNS:kafka"
for name in "$@"; do
    case $name in
        *[!0-9.]*) names="$names,DNS:$name" ;;
        *) names="$names,IP:$name" ;;
    esac
done

if [ ! -f ca.key ]; then
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key
    openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=$organisation authority" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign -out ca.pem
fi

issue() { # name, usage, alternative names
    [ ! -f "$1.crt" ] || return 0
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"
    # The subject has to be this to the letter: ssl.principal.mapping.rules in server.properties asks for all of it.
    openssl req -new -key "$1.key" -subj "/O=$organisation/CN=$1" -out "$1.csr"
    printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n' "$2" >"$1.ext"
    [ -z "$3" ] || printf 'subjectAltName=%s\n' "$3" >>"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -sha256 -days 365 \
        -extfile "$1.ext" -out "$1.crt" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

issue broker serverAuth,clientAuth "$names"
issue gateway clientAuth ""
cat broker.key broker.crt >broker.pem
echo "made in $folder: ca.pem, broker.pem for Kafka; ca.pem, gateway.crt, gateway.key for the gateway"
