package appkit_test

import (
	"os"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/fault"
)

// What the flags of keys mean is settled before anything is made.
func TestFlagsOfKeysThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable() // any program
	if err != nil {
		t.Fatal(err)
	}
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity := plugin.EncodeIdentity("x", nil)
	bare := write(t, []byte(identity+"\n"), dir, "bare.txt")
	two := write(t, []byte(identity+"\n"+identity+"\n"), dir, "two.txt")
	native := write(t, []byte("# public key: "+x.Recipient().String()+"\n"+x.String()+"\n"), dir, "native.txt")
	empty := write(t, []byte("# nothing\n"), dir, "empty.txt")
	full := write(t, []byte("#    Recipient: "+x.Recipient().String()+"\n"+identity+"\n"), dir, "full.txt")
	recipients := write(t, []byte(x.Recipient().String()+"\n"+x.Recipient().String()+"\n"), dir, "two.pub")
	for name, c := range map[string]struct {
		args []string
		kind fault.Kind
		want string
	}{
		"a plugin without its identity":  {[]string{"--age-plugin", exe}, fault.Usage, "stand together"},
		"an identity without its plugin": {[]string{"--age-identity", bare}, fault.Usage, "stand together"},
		"a recipient without a plugin":   {[]string{"--age-recipient", x.Recipient().String()}, fault.Usage, "recipient of an --age-plugin"},
		"no recipient anywhere":          {[]string{"--age-plugin", exe, "--age-identity", bare}, fault.Usage, "names a recipient"},
		"two identities":                 {[]string{"--age-plugin", exe, "--age-identity", two}, fault.Usage, "more than the one line"},
		"a native identity":              {[]string{"--age-plugin", exe, "--age-identity", native}, fault.Usage, "more than the one line"},
		"a file of comments":             {[]string{"--age-plugin", exe, "--age-identity", empty}, fault.Usage, "holds no line AGE-PLUGIN-"},
		"a file that is not there":       {[]string{"--age-plugin", exe, "--age-identity", dir + "/none"}, fault.Medium, "none"},
		"a relative plugin":              {[]string{"--age-plugin", "age-plugin-x", "--age-identity", full}, fault.Usage, "absolute path"},
		"a folder for a plugin":          {[]string{"--age-plugin", dir, "--age-identity", full}, fault.Locked, "not a program"},
		"two recovery recipients":        {[]string{"--recovery", recipients}, fault.Usage, "has to hold one recipient"},
		"a recovery recipient of RSA":    {[]string{"--recovery", "age1rsa"}, fault.Usage, "recovery recipient"},
	} {
		t.Run(name, func(t *testing.T) {
			s := side{t, bundle.RoleRelay, t.TempDir()}
			s.must(c.kind, append([]string{"init", "--label", "r", "--insecure-no-passphrase"}, c.args...), c.want)
			s.must(fault.Locked, []string{"card"})
		})
	}
}

// Nothing begins a change of keys by accident, and its flags mean one thing.
func TestRekeyFlags(t *testing.T) {
	agent, relay := newSides(t)
	agent.must(fault.NothingYet, []string{"rekey", "--finish"}, "no change of keys is under way")
	agent.must(fault.Usage, []string{"rekey", "--force"}, "--force is of --finish")
	agent.must(fault.Usage, []string{"rekey", "file.azc"})
	agent.must(0, []string{"rekey", "--out", agent.home + "/rekey.azc"})
	relay.must(0, []string{"pair", agent.home + "/rekey.azc"}, "replaces key")
	relay.must(0, []string{"pair", agent.home + "/rekey.azc"}, "was pinned already")
	relay.must(0, []string{"log"}, "rekeyed ")
	agent.must(0, []string{"status"}, "the old ones are still kept")
	agent.must(0, []string{"rekey", "--finish", "--force"}, "are removed")
	agent.must(fault.NothingYet, []string{"rekey", "--finish"})
}
