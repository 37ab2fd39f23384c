package main_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/clock"
	"github.com/azs-courier/azs-courier/shared/trust"
)

// forge makes what a hacked relay could send: it opens the answer FILE as the
// agent of AZS_AGENT_HOME, changes what the fields say, and seals the result
// with the relay's own keys in AZS_RELAY_HOME as a new bundle TO. The signature
// is right; only the agent's comparison with its request stands in the way.
func forge(ts *testscript.TestScript, args []string) {
	need(ts, args, 3, "forge FILE TO FIELD=VALUE…")
	agent, _ := open(ts, ts.Getenv("AZS_AGENT_HOME"))
	relay, peers := open(ts, ts.Getenv("AZS_RELAY_HOME"))
	sealed, err := bundle.Split([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	_, agentPeers := open(ts, ts.Getenv("AZS_AGENT_HOME"))
	_, v, err := trust.Verify(agent.Card, agentPeers, sealed, bundle.KindAnswer)
	ts.Check(err)
	body, err := agent.Open(v)
	ts.Check(err)
	payload, err := body.Payload()
	ts.Check(err)
	id, err := bundle.NewID(rand.Reader)
	ts.Check(err)
	m, answer := v.Manifest, body.Content.(*bundle.Answer)
	draft := bundle.Draft{Bundle: id, Seq: m.Seq, Re: m.Re, Created: m.Created, Expires: m.Expires, Content: answer, Payload: payload}
	for _, change := range args[2:] {
		field, value, ok := strings.Cut(change, "=")
		if !ok {
			ts.Fatalf("%q is not FIELD=VALUE", change)
		}
		switch field {
		case "seq":
			draft.Seq, err = strconv.ParseUint(value, 10, 64)
		case "re":
			draft.Re, err = bundle.ParseDigest(value)
		case "expires":
			draft.Expires, err = clock.Parse(value)
		case "request-created":
			answer.RequestCreated, err = clock.Parse(value)
		case "request-expires":
			answer.RequestExpires, err = clock.Parse(value)
		case "operation":
			answer.Operation = value
		case "cloud-id":
			answer.CloudID = value
		case "subscription":
			answer.Subscription = value
		case "resource-group":
			answer.ResourceGroup = value
		case "registration":
			answer.Registration = value
		case "key-file":
			draft.Payload = []byte(ts.ReadFile(value))
			answer.KeySHA256 = bundle.Sum(draft.Payload)
		case "key-damaged": // without saying so
			draft.Payload = bytes.Replace(draft.Payload, []byte("e"), []byte("f"), 1)
		default:
			ts.Fatalf("no field %q can be forged", field)
		}
		ts.Check(err)
	}
	for _, p := range peers {
		if p.Pair != m.Pair {
			continue
		}
		forged, err := relay.Seal(p, draft, rand.Reader)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), forged.Text(), 0o600))
		return
	}
	ts.Fatalf("the relay has no agent with pair %s", m.Pair)
}
