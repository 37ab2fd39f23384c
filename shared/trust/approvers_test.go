package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
)

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Threat: one person does what two should.
func TestApprovalsAreCountedByPinnedKeys(t *testing.T) {
	agent, relay, atAgent, atRelay := newPair(t)
	id, err := bundle.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made, err := agent.Seal(atAgent, bundle.Draft{Bundle: id, Seq: 1, Created: noon, Expires: noon.Add(time.Hour),
		Content: &bundle.Request{Label: "site-a", Operation: bundle.Unregister, CloudID: "0d4bd0d2-7f5b-4a63-9f0b-2c1d8a1e7b11"}}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ana, bo, eve := newSigner(t), newSigner(t), newSigner(t)
	rule := Approvers{Need: 2, All: []Approver{{"ana", ana.PublicKey()}, {"bo", bo.PublicKey()}}}
	for _, tt := range []struct {
		name    string
		signers []ssh.Signer
		rule    Approvers
		missing string // in the refusal; "" is none
	}{
		{"nobody", nil, rule, "has 0 of 2 approvals, missing 2 of: ana (SHA256:"},
		{"one", []ssh.Signer{bo}, rule, "has 1 of 2 approvals, missing 1 of: ana (SHA256:"},
		{"one and a stranger", []ssh.Signer{ana, eve}, rule, "has 1 of 2 approvals, missing 1 of: bo (SHA256:"},
		{"both", []ssh.Signer{bo, ana}, rule, ""},
		{"one of two", []ssh.Signer{ana}, Approvers{1, rule.All}, ""},
		{"removed since", []ssh.Signer{bo, ana}, Approvers{1, []Approver{{"eve", eve.PublicKey()}}}, "has 0 of 1"},
		{"no rule", nil, Approvers{}, ""},
		// The author's key may be in a rule that came about before its card.
		{"the author", nil, Approvers{1, []Approver{{"site", agent.Card.Key}}}, "has 0 of 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := made
			for _, s := range tt.signers {
				if b, err = b.Approve(rand.Reader, s); err != nil {
					t.Fatal(err)
				}
			}
			_, v, err := Verify(relay.Card, []Peer{atRelay}, b, bundle.KindRequest)
			if err != nil {
				t.Fatal(err)
			}
			err = tt.rule.Check(v)
			switch {
			case tt.missing == "" && err != nil:
				t.Error(err)
			case tt.missing != "" && (fault.KindOf(err) != fault.Approval || !strings.Contains(err.Error(), tt.missing)):
				t.Errorf("%v, want %q", err, tt.missing)
			case tt.missing != "" && fault.HintOf(err) != "azs-relay approve REQUEST --key KEYFILE":
				t.Errorf("hint %q", fault.HintOf(err))
			}
		})
	}
	if err := rule.CheckNone("azs-relay", "a move"); fault.KindOf(err) != fault.Approval {
		t.Errorf("without a bundle: %v", err)
	}
	if err := (Approvers{}).CheckNone("azs-relay", "a move"); err != nil {
		t.Error(err)
	}
}

// Threat: the same person under two names, or the one who makes a bundle, makes up
// the number.
func TestRulesThatAreRefused(t *testing.T) {
	s, id := newStore(t, bundle.RoleRelay, "relay-1")
	_, agent := newStore(t, bundle.RoleAgent, "site-a")
	pin(t, s, agent.Card)
	ana, bo := newSigner(t).PublicKey(), newSigner(t).PublicKey()
	var many []Approver
	for _, l := range strings.Split("abcdefg", "") {
		many = append(many, Approver{l, newSigner(t).PublicKey()})
	}
	for name, a := range map[string]Approvers{
		"more than there are":  {3, []Approver{{"ana", ana}, {"bo", bo}}},
		"less than none":       {-1, []Approver{{"ana", ana}}},
		"one key, two labels":  {2, []Approver{{"ana", ana}, {"bo", ana}}},
		"one label, two keys":  {2, []Approver{{"ana", ana}, {"ana", bo}}},
		"no label":             {1, []Approver{{"", ana}}},
		"a label with a blank": {1, []Approver{{"ana b", ana}}},
		"own key":              {1, []Approver{{"me", id.Card.Key}}},
		"the peer's key":       {1, []Approver{{"site", agent.Card.Key}}},
		"too many":             {1, many},
	} {
		if err := s.SetApprovers(a); fault.KindOf(err) != fault.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a, err := s.Approvers(); err != nil || a.Need != 0 || len(a.All) != 0 {
		t.Errorf("a refused rule is there: %+v, %v", a, err)
	}
	if err := s.SetApprovers(Approvers{1, []Approver{{"bo", bo}, {"ana", ana}}}); err != nil {
		t.Fatal(err)
	}
	a, err := s.Approvers()
	if err != nil || a.Need != 1 || len(a.All) != 2 || a.All[0].Label != "ana" || !same(a.All[1].Key, bo) {
		t.Errorf("read back %+v, %v", a, err)
	}
	signers, err := s.Signers()
	if err != nil || strings.Count(string(signers), "\n") != 4 || !strings.Contains(string(signers), `ana namespaces="azs-courier-approval@v1" ssh-ed25519 `) {
		t.Errorf("allowed signers %s, %v", signers, err)
	}

	// Every byte of the file counts: one that is changed is not a rule that asks for less.
	file := string(s.files.(folder)) + "/approvers"
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if i == len(approversMagic)+len("\nneed: ") {
			continue // the number itself
		}
		for _, flip := range []byte{1, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if a, err := s.Approvers(); err == nil && (a.Need < 1 || len(a.All) != 2) {
				t.Errorf("byte %d: the rule reads %+v", i, a)
			}
		}
	}
	for _, bad := range [][]byte{{}, good[:len(good)-1], append(good, '\n'), append(good, "# x\n"...), bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n"))} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Approvers(); fault.KindOf(err) != fault.Refused {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
