package bundle

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"testing"

	"filippo.io/age"

	"github.com/azs-courier/azs-courier/shared/official/officialtest"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

// sizeCase is a modelled token.
type sizeCase struct {
	name string
	spec officialtest.Spec
}

func sizeCases() []sizeCase {
	var out []sizeCase
	for _, server := range []struct {
		name  string
		parts officialtest.Server
	}{{"typical", officialtest.Typical}, {"large", officialtest.Large}} {
		for _, nodes := range []int{1, 4, 8, 16} {
			out = append(out, sizeCase{fmt.Sprintf("%s-%d", server.name, nodes), officialtest.Spec{Seed: 1, Nodes: nodes, Server: server.parts}})
		}
	}
	return out
}

// parties is the pair of the size tests: agent and relay by the test keys.
type parties struct {
	agent, relay side
	pair         ID
}

func newParties(t testing.TB) parties {
	return parties{newSide(t, "agent"), newSide(t, "relay"), testID("size")}
}

func (p parties) draft(spec officialtest.Spec, token []byte) Draft {
	return Draft{Bundle: testID("size"), Pair: p.pair, Seq: 17, Recipients: p.relay.recipients, Created: agentTime, Expires: agentTime.Add(fortnight),
		Content: requestContent(spec, token), Payload: token}
}

// pipelineSize is what an operator without this program would carry: gzip -9 of
// the token, age of that to the same recipient, and the armored signature that
// ssh-keygen -Y sign makes beside it with the same key (that the armor is the
// same to the byte, package sshsig tests).
func (p parties) pipelineSize(t testing.TB, token []byte) int {
	t.Helper()
	var zipped bytes.Buffer
	z, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(token); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sealed, err := encrypt(zipped.Bytes(), p.relay.recipients)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := sshsig.Sign(rand.Reader, p.agent.signer, "file", sealed)
	if err != nil {
		t.Fatal(err)
	}
	return len(sealed) + len(armorSignature.encode(blob))
}

// TestSizes holds the promise about size: never more than gzip, age and
// ssh-keygen by hand plus the manifest, and at most three quarters of the token
// for a stamp of four typical hosts.
func TestSizes(t *testing.T) {
	p := newParties(t)
	for _, c := range sizeCases() {
		t.Run(c.name, func(t *testing.T) {
			token := []byte(officialtest.Token(c.spec))
			b := seal(t, p.draft(c.spec, token), p.agent.signer)
			wire, pipeline := len(b.Wire()), p.pipelineSize(t, token)
			ratio := float64(wire) / float64(len(token))
			t.Logf("token %d, wire %d (%.4f), text %d, pipeline %d (%.4f), manifest %d", len(token), wire, ratio, len(b.Text()),
				pipeline, float64(pipeline)/float64(len(token)), len(b.manifest))
			if wire > pipeline+len(b.manifest) {
				t.Errorf("wire has %d bytes, gzip, age and ssh-keygen with the manifest %d", wire, pipeline+len(b.manifest))
			}
			if c.name == "typical-4" && ratio > 0.75 {
				t.Errorf("wire is %.4f of the token, want at most 0.75", ratio)
			}
		})
	}
}

// TestDictionary holds the reason for the dictionary: without it, the smallest
// wire spelling of a request for four typical hosts is above three quarters of
// its token.
func TestDictionary(t *testing.T) {
	p := newParties(t)
	spec := officialtest.Spec{Seed: 1, Nodes: 4}
	token := []byte(officialtest.Token(spec))
	wire := len(seal(t, p.draft(spec, token), p.agent.signer).Wire())
	plain := table(segments(token))
	with, without := len(deflate(plain)), len(deflateWithout(t, plain))
	t.Logf("payload %d with, %d without; wire/token %.4f with, %.4f without", with, without,
		float64(wire)/float64(len(token)), float64(wire-with+without)/float64(len(token)))
	if ratio := float64(wire-with+without) / float64(len(token)); ratio <= 0.75 {
		t.Errorf("without the dictionary the wire is %.4f of the token: it is not needed", ratio)
	}
}

func BenchmarkSeal(b *testing.B) {
	p := newParties(b)
	for _, c := range sizeCases() {
		b.Run(c.name, func(b *testing.B) {
			token := []byte(officialtest.Token(c.spec))
			d := p.draft(c.spec, token)
			var wire int
			for b.Loop() {
				sealed, err := d.Seal(rand.Reader, p.agent.signer)
				if err != nil {
					b.Fatal(err)
				}
				wire = len(sealed.Wire())
			}
			b.ReportMetric(float64(wire)/float64(len(token)), "wire/token")
			b.ReportMetric(float64(p.pipelineSize(b, token))/float64(len(token)), "pipeline/token")
			b.ReportMetric(float64(wire), "wire-bytes")
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	p := newParties(b)
	for _, c := range sizeCases() {
		b.Run(c.name, func(b *testing.B) {
			token := []byte(officialtest.Token(c.spec))
			raw := seal(b, p.draft(c.spec, token), p.agent.signer).Wire()
			e := expect(p.agent, p.relay, p.pair, KindRequest)
			ids := []age.Identity{p.relay.identity}
			for b.Loop() {
				if _, _, err := openAll(raw, e, ids...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(raw))/float64(len(token)), "wire/token")
		})
	}
}
