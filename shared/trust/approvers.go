package trust

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/sshsig"
)

// Approver is somebody whose signature under a manifest, in
// [bundle.NamespaceApproval], counts as an approval.
type Approver struct {
	Label string
	Key   ssh.PublicKey
}

// Approvers are this side's rule for two or more persons: what comes in is acted on
// only when Need of All have signed its manifest beside its author. The zero value
// asks for none.
//
// The security property: an approval is a signature over the very manifest that is
// acted on, by a key that is pinned here; the author of a bundle, this side's own
// key and the pinned peers approve nothing. The limit: who may write in the state
// folder may change the rule. The journal tells of every change that a program made.
type Approvers struct {
	Need int
	All  []Approver // by label
}

const (
	approversName  = "approvers"
	approversMagic = "azs-courier-approvers/v1"

	// MaxApprovers is how many keys a rule may name: with two of an author, a
	// manifest carries no more than [bundle.MaxSignatures].
	MaxApprovers = bundle.MaxSignatures - 2
)

// Approvers reads the rule; without one it asks for nobody.
func (s Store) Approvers() (Approvers, error) {
	raw, err := s.files.ReadFile(approversName, 16<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return Approvers{}, nil
	}
	if err != nil {
		return Approvers{}, storing("approvers", err)
	}
	a, err := parseApprovers(raw)
	if err != nil {
		return Approvers{}, fault.New(fault.Refused, "approvers in %s: %w", s.files, err)
	}
	return a, nil
}

// SetApprovers replaces the rule, if [Store.CheckApprovers] lets it.
func (s Store) SetApprovers(a Approvers) error {
	if err := s.CheckApprovers(&a); err != nil {
		return err
	}
	if err := s.files.WriteFile(approversName, a.marshal(), false); err != nil {
		return storing("approvers", err)
	}
	return nil
}

// CheckApprovers sorts a rule by label and judges it. A key that is this side's own
// or a pinned peer's, or one that two labels share, is a [fault.Usage], as is a Need
// beyond All.
func (s Store) CheckApprovers(a *Approvers) error {
	own, err := s.Card()
	if err != nil {
		return err
	}
	peers, err := s.Peers()
	if err != nil {
		return err
	}
	for _, p := range a.All {
		if same(p.Key, own.Key) {
			return fault.New(fault.Usage, "the key of %q is this side's own: it approves nothing", p.Label)
		}
		for _, q := range peers {
			if same(p.Key, q.Card.Key) {
				return fault.New(fault.Usage, "the key of %q is that of the pinned %s %q: who makes a bundle does not approve it", p.Label, q.Card.Role, q.Label())
			}
		}
	}
	slices.SortFunc(a.All, func(x, y Approver) int { return strings.Compare(x.Label, y.Label) })
	if err := a.check(); err != nil {
		return fault.New(fault.Usage, "%w", err)
	}
	return nil
}

func (a Approvers) check() error {
	if a.Need < 0 || a.Need > len(a.All) {
		return fmt.Errorf("%d approvals are wanted of %d approvers", a.Need, len(a.All))
	}
	if len(a.All) > MaxApprovers {
		return fmt.Errorf("%d approvers, more than the %d whose signatures fit under a manifest", len(a.All), MaxApprovers)
	}
	for i, p := range a.All {
		if err := CheckLabel(p.Label); err != nil {
			return err
		}
		if !sshsig.Allowed(p.Key.Type()) {
			return fmt.Errorf("the key of %q is of type %q, which signs no manifest", p.Label, p.Key.Type())
		}
		for _, q := range a.All[:i] {
			if q.Label == p.Label {
				return fmt.Errorf("two approvers have the label %q", p.Label)
			}
			if same(p.Key, q.Key) {
				return fmt.Errorf("%q and %q have the same key: two persons have two", q.Label, p.Label)
			}
		}
	}
	return nil
}

func (a Approvers) marshal() []byte {
	out := fmt.Appendf(nil, "%s\nneed: %d\n\n", approversMagic, a.Need)
	for _, p := range a.All {
		out = append(out, p.signersLine()...)
	}
	return out
}

// signersLine is the approver's line in an allowed_signers file (ssh-keygen(1)).
func (p Approver) signersLine() string {
	return fmt.Sprintf("%s namespaces=%q %s\n", p.Label, bundle.NamespaceApproval, bytes.TrimSpace(ssh.MarshalAuthorizedKey(p.Key)))
}

// parseApprovers takes what marshal writes and nothing else.
func parseApprovers(raw []byte) (a Approvers, err error) {
	damaged := errors.New("the file is damaged")
	head, rest, ok := strings.Cut(string(raw), "\n\n")
	need, ok2 := strings.CutPrefix(head, approversMagic+"\nneed: ")
	if !ok || !ok2 {
		return a, damaged
	}
	if a.Need, err = strconv.Atoi(need); err != nil {
		return a, damaged
	}
	for line := range strings.Lines(rest) {
		label, key, _ := strings.Cut(line, " ")
		k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
		if err != nil {
			return Approvers{}, damaged
		}
		a.All = append(a.All, Approver{label, k})
	}
	if !bytes.Equal(a.marshal(), raw) {
		return Approvers{}, damaged
	}
	return a, a.check()
}

// By returns the approvers that signed a verified bundle, in the order of their
// labels.
func (a Approvers) By(v *bundle.Verified) (by []Approver) {
	for _, p := range a.All {
		if slices.ContainsFunc(v.Approvers(), func(k ssh.PublicKey) bool { return same(k, p.Key) }) {
			by = append(by, p)
		}
	}
	return by
}

// Check refuses a verified bundle that too few have approved, with
// [fault.Approval] and the names of those who may still.
func (a Approvers) Check(v *bundle.Verified) error {
	by := a.By(v)
	if len(by) >= a.Need {
		return nil
	}
	var missing []string
	for _, p := range a.All {
		if !slices.ContainsFunc(by, func(q Approver) bool { return q.Label == p.Label }) {
			missing = append(missing, fmt.Sprintf("%s (%s)", p.Label, bundle.KeyFingerprint(p.Key)))
		}
	}
	return fault.New(fault.Approval, "%s %s has %d of %d approvals, missing %d of: %s", v.Manifest.Kind, v.Manifest.Bundle,
		len(by), a.Need, a.Need-len(by), strings.Join(missing, ", ")).
		Hint("azs-%s approve %s --key KEYFILE", actor(v.Manifest.Kind), strings.ToUpper(string(v.Manifest.Kind)))
}

// CheckNone refuses what is done without a bundle, since nobody can have approved
// it; what names it, and program is ours.
func (a Approvers) CheckNone(program, what string) error {
	if a.Need == 0 {
		return nil
	}
	return fault.New(fault.Approval, "%s needs %d approvals here, and without a bundle there is nothing that somebody could have signed", what, a.Need).
		Hint("%s approvers", program)
}

// actor is the side that acts on a bundle.
func actor(k bundle.Kind) string {
	if k == bundle.KindAnswer {
		return bundle.RoleAgent
	}
	return bundle.RoleRelay
}

func same(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }
