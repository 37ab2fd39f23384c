#!/usr/bin/env bash
# The main job end to end, as two operators and a courier see it: two state
# folders, a folder that plays the stick, a simulated privileged endpoint and a
# simulated Azure on loopback.
# Nothing leaves this machine; everything is thrown away at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/bin
work=$(mktemp -d)
azure= stamp=
cleanup() { for p in $azure $stamp; do kill "$p" 2>/dev/null || true; done; rm -rf "$work"; }
trap cleanup EXIT
cd "$work"

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold= plain=; fi
step=0
say() { step=$((step + 1)); printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$plain"; }
run() { printf '$ %s\n' "$*" >&2; "$@"; }
# field FILE NAME: a text in a JSON line, or the first text of a list
field() { sed -n "s/.*\"$2\":\[\{0,1\}\"\([^\"]*\)\".*/\1/p" "$1" | sed 's/\\\\/\\/g'; }
export PATH=$bin:$PATH AZS_AGENT_HOME=$work/agent AZS_RELAY_HOME=$work/relay
mkdir stick
head -c 24 /dev/urandom | base64 > agent.pass
head -c 24 /dev/urandom | base64 > relay.pass
chmod 600 ./*.pass

say "The far ends: a simulated stamp with its privileged endpoint inside, a simulated Azure outside"
azuretest --dir az > azure.json &
azure=$!
peptest --dir pep --nodes 4 --activation 2s > pep.json &
stamp=$!
for _ in $(seq 100); do [ -s azure.json ] && [ -s pep.json ] && break; sleep 0.1; done
subscription=$(field azure.json subscription)
export AZS_PEP AZS_PEP_USER AZS_PEP_PASSWORD_FILE
AZS_PEP=$(field pep.json addresses) AZS_PEP_USER=$(field pep.json user) AZS_PEP_PASSWORD_FILE=$(field pep.json passwordFile)
run azs-agent info

say "Inside: the agent makes its keys (under a passphrase)"
run azs-agent init --label site-a --passphrase-file agent.pass
say "Outside: the relay makes its keys and prints its card"
run azs-relay init --label relay-1 --passphrase-file relay.pass
run azs-relay card --out relay-card.azc

say "Inside: the agent pins the relay; the relay's operator reads the words of the card out"
run azs-agent pair relay-card.azc --card-words --expect-words "$(azs-relay words)"

say "Inside: the stamp makes a registration token, and it is sealed for the relay, with the agent's own card, onto the stick"
run azs-agent token --billing-model Capacity --agreement-number 1234567 --expect-subscription "$subscription" --with-card --put stick --passphrase-file agent.pass

say "At the kiosk: who sent this? No key needed, and plain ssh-keygen would do (docs/KIOSK.md)"
run azs-agent pair export-signers allowed_signers
run azs-relay verify stick/*.azc --signers allowed_signers --home "$work/nowhere"

say "Outside: the relay pins the agent by the card in its request; the agent's operator reads the words of the pair out"
run azs-relay pair stick/*.azc --expect-words "$(azs-agent words relay-card.azc)" --passphrase-file relay.pass

say "Outside: what would be sent to Azure?"
export AZS_CLOUD=custom AZS_ARM_ENDPOINT AZS_CA_FILE AZS_AUTH=client-secret AZS_TENANT AZS_CLIENT_ID AZS_CLIENT_SECRET_FILE
AZS_ARM_ENDPOINT=$(field azure.json arm) AZS_CA_FILE=$(field azure.json caFile) AZS_TENANT=$(field azure.json tenant) AZS_CLIENT_ID=$(field azure.json clientId) AZS_CLIENT_SECRET_FILE=$(field azure.json clientSecretFile)
run azs-relay register stick/azs-request-*.azc --dry-run --passphrase-file relay.pass

say "Outside: register, lock, fetch the key, seal the answer onto the stick"
run azs-relay register stick/azs-request-*.azc --yes --put stick --passphrase-file relay.pass

say "Inside: open the answer, check it against the request and the stamp, activate the stamp, make a receipt"
run azs-agent take stick
run azs-agent activate stick/azs-answer-*.azc --put stick --passphrase-file agent.pass

say "Outside: the receipt closes the trip"
run azs-relay take stick --passphrase-file relay.pass

say "Used answers stay used: the same answer again is refused with exit code 5"
code=0
run azs-agent activate stick/azs-answer-*.azc --passphrase-file agent.pass || code=$?
[ "$code" = 5 ] || { echo "exit code was $code, want 5" >&2; exit 1; }

say "The journals, checked line by line"
run azs-agent log | tail -n 1
run azs-relay log | tail -n 1
run azs-relay status
