package main_test

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/azs-courier/azs-courier/shared/sshkey/agenttest"
)

// installed reports whether a tool is there, or has to be.
func installed(name, require string) bool {
	_, err := exec.LookPath(name)
	return err == nil || os.Getenv("AZS_REQUIRE_"+require) == "1"
}

// sshagent starts OpenSSH's ssh-agent, without keys, and lets SSH_AUTH_SOCK name it.
func sshagent(ts *testscript.TestScript, _ []string) {
	dir, err := os.MkdirTemp("", "agent") // a socket's path is short
	ts.Check(err)
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, socket) {
		ts.Fatalf("ssh-agent said %q, %v", line, err)
	}
	ts.Setenv("SSH_AUTH_SOCK", socket)
}

// skagent starts an ssh-agent with a security key in software, "token", and lets
// SSH_AUTH_SOCK name it.
func skagent(ts *testscript.TestScript, _ []string) {
	seed := sha256.Sum256([]byte("a security key of the tests"))
	a := agenttest.New(map[string]ssh.Signer{"token": &agenttest.SK{Key: ed25519.NewKeyFromSeed(seed[:]), Application: "ssh:"}})
	dir, err := os.MkdirTemp("", "agent")
	ts.Check(err)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	ts.Check(err)
	done := make(chan struct{})
	go func() { defer close(done); a.Serve(l) }()
	ts.Defer(func() { l.Close(); <-done; os.RemoveAll(dir) })
	ts.Setenv("SSH_AUTH_SOCK", l.Addr().String())
}

// recoverykey makes the key for a safe: recovery.key and recovery.pub, as
// `age-keygen -pq` and `age-keygen -y` write them, and classic.pub, of a key that a
// quantum computer could find.
func recoverykey(ts *testscript.TestScript, _ []string) {
	id, err := age.GenerateHybridIdentity()
	ts.Check(err)
	classic, err := age.GenerateX25519Identity()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("recovery.key"), []byte(id.String()+"\n"), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("recovery.pub"), []byte("# for the safe\n"+id.Recipient().String()+"\n"), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("classic.pub"), []byte(classic.Recipient().String()+"\n"), 0o600))
	ts.Setenv("AGE", os.Getenv("AZS_AGE"))
}

// ageplugin builds age-plugin-tagtest of the module filippo.io/age, writes what
// such a plugin writes for its user to plugin.txt, and lets PLUGIN name it. A plugin
// of the same name that leaves the mark $WORK/hostile-was-here stands first in PATH.
func ageplugin(ts *testscript.TestScript, _ []string) {
	path := ts.MkAbs("plugins/age-plugin-tagtest")
	build := exec.Command("go", "build", "-o", path, "filippo.io/age/tag/internal/age-plugin-tagtest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		ts.Fatalf("build the plugin: %v\n%s", err, out)
	}
	const recipient = "age1tag1qwe0kafsjrar4txm6heqnhpfuggzr0gvznz7fvygxrlq90u5mq2pysxtw6h" // its keys are fixed
	ts.Check(os.WriteFile(ts.MkAbs("plugin.txt"), []byte("# recipient: "+recipient+"\n"+plugin.EncodeIdentity("tagtest", nil)+"\n"), 0o600))
	ts.Setenv("PLUGIN", path)
	hostile := ts.MkAbs("hostile")
	ts.Check(os.MkdirAll(hostile, 0o755))
	ts.Check(os.WriteFile(filepath.Join(hostile, "age-plugin-tagtest"), []byte("#!/bin/sh\ntouch "+ts.MkAbs("hostile-was-here")+"\n"), 0o755))
	ts.Setenv("PATH", hostile+string(os.PathListSeparator)+ts.Getenv("PATH"))
}
