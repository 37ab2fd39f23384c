#!/usr/bin/env bash
# The main job end to end, as two operators and a courier see it: two state
# folders, a folder that plays the stick, and a simulated Azure on loopback.
# Nothing leaves this machine; everything is thrown away at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/bin
work=$(mktemp -d)
azure=
cleanup() { [ -z "$azure" ] || kill "$azure" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
cd "$work"

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold= plain=; fi
step=0
say() { step=$((step + 1)); printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$plain"; }
run() { printf '$ %s\n' "$*" >&2; "$@"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" azure.json; }
export PATH=$bin:$PATH AZS_AGENT_HOME=$work/agent AZS_RELAY_HOME=$work/relay
mkdir stick
head -c 24 /dev/urandom | base64 > agent.pass
head -c 24 /dev/urandom | base64 > relay.pass
chmod 600 ./*.pass

say "The far ends: a simulated Azure, and the token file that the official cmdlet leaves on the stamp"
azuretest --dir az > azure.json &
azure=$!
for _ in $(seq 100); do [ -s azure.json ] && break; sleep 0.1; done
subscription=$(field subscription)
run azuretest token --nodes 4 --server typical --out RegistrationToken.txt
printf 'RegistrationToken.txt: %s bytes, UTF-16 as Out-File writes it\n' "$(wc -c < RegistrationToken.txt)"

say "Inside: the agent makes its keys (under a passphrase)"
run azs-agent init --label site-a --passphrase-file agent.pass
say "Outside: the relay makes its keys and prints its card"
run azs-relay init --label relay-1 --passphrase-file relay.pass
run azs-relay card --out relay-card.azc

say "Inside: the agent pins the relay; the relay's operator reads the words of the card out"
run azs-agent pair relay-card.azc --card-words --expect-words "$(azs-relay words)"

say "Inside: the token is sealed for the relay, with the agent's own card, onto the stick"
run azs-agent token --token-file RegistrationToken.txt --expect-subscription "$subscription" --with-card --put stick --passphrase-file agent.pass

say "At the kiosk: who sent this? No key needed, and plain ssh-keygen would do (docs/KIOSK.md)"
run azs-agent pair export-signers allowed_signers
run azs-relay verify stick/*.azc --signers allowed_signers --home "$work/nowhere"

say "Outside: the relay pins the agent by the card in its request; the agent's operator reads the words of the pair out"
run azs-relay pair stick/*.azc --expect-words "$(azs-agent words relay-card.azc)" --passphrase-file relay.pass

say "Outside: what would be sent to Azure?"
export AZS_CLOUD=custom AZS_ARM_ENDPOINT AZS_CA_FILE AZS_AUTH=client-secret AZS_TENANT AZS_CLIENT_ID AZS_CLIENT_SECRET_FILE
AZS_ARM_ENDPOINT=$(field arm) AZS_CA_FILE=$(field caFile) AZS_TENANT=$(field tenant) AZS_CLIENT_ID=$(field clientId) AZS_CLIENT_SECRET_FILE=$(field clientSecretFile)
run azs-relay register stick/azs-request-*.azc --dry-run --passphrase-file relay.pass

say "Outside: register, lock, fetch the key, seal the answer onto the stick"
run azs-relay register stick/azs-request-*.azc --yes --put stick --passphrase-file relay.pass

say "Inside: open the answer, check it against the request, write the key for the official cmdlet, make a receipt"
run azs-agent take stick
run azs-agent activate stick/azs-answer-*.azc --key-out ActivationKey.txt --put stick --passphrase-file agent.pass
printf 'ActivationKey.txt: %s bytes, SHA-256 %s\n' "$(wc -c < ActivationKey.txt)" "$(tr -d '\n' < ActivationKey.txt | sha256sum | cut -d' ' -f1)"

say "Outside: the receipt closes the trip"
run azs-relay take stick --passphrase-file relay.pass

say "Used answers stay used: the same answer again is refused with exit code 5"
code=0
run azs-agent activate stick/azs-answer-*.azc --key-out Again.txt --passphrase-file agent.pass || code=$?
[ "$code" = 5 ] || { echo "exit code was $code, want 5" >&2; exit 1; }
[ ! -e Again.txt ]

say "The journals, checked line by line"
run azs-agent log | tail -n 1
run azs-relay log | tail -n 1
run azs-relay status
