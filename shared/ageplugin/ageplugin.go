// Package ageplugin opens age files with a plugin that is named by its absolute
// path: a program that holds an age identity in a TPM, a security key or a smart
// card (https://c2sp.org/age-plugin, the state machine identity-v1).
//
// The security property: exactly the program at that path is started, and no
// other. age's own client looks a plugin up in PATH by the name in the identity,
// so whoever may put a file into a folder of PATH is handed the identity and the
// stanzas; here PATH is never asked. A program that others than its owner may
// write is not started. What the plugin returns is a file key that age then
// proves by the MAC of the file's header: a wrong one opens nothing. The file key
// is never written anywhere, whatever AGEDEBUG says.
//
// The limit: the plugin is a program of the operator's choice that runs with the
// operator's rights. It sees the header of each file and the file keys of those
// that it opens, never the private signing key.
package ageplugin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/azs-courier/azs-courier/shared/fault"
)

const (
	columns    = 64
	maxLine    = 8 << 10 // bytes of a line from the plugin
	maxBody    = 64 << 10
	maxAnswers = 1000 // of one plugin for one file
	fileKey    = 16   // bytes of an age file key
)

// UI is how a plugin reaches the person at the terminal. Its texts are foreign.
type UI struct {
	Say func(text string)
	Ask func(prompt string, secret bool) (string, error) // an error says that nobody answers
}

// Identity is an age identity that a plugin holds.
type Identity struct {
	ctx  context.Context
	path string
	text string
	ui   UI
}

// New checks path and identity, and starts nothing. The path is absolute and
// clean, and the file there is a program that nobody but its owner may change;
// the identity is the one line AGE-PLUGIN-… that the plugin made.
// Failures are [fault.Usage] for a path or an identity that is none, and
// [fault.Locked] for a program that is not there or not to be trusted.
func New(ctx context.Context, path, identity string, ui UI) (*Identity, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsAny(path, "\r\n") {
		return nil, fault.New(fault.Usage, "age plugin %q is not named by a clean absolute path; none is looked for in PATH", path)
	}
	if _, _, err := plugin.ParseIdentity(identity); err != nil {
		return nil, fault.New(fault.Usage, "the age plugin's identity is not of the form AGE-PLUGIN-…")
	}
	id := &Identity{ctx, path, identity, ui}
	return id, id.check()
}

// check looks at the program. It is done again before each start.
func (id *Identity) check() error {
	info, err := os.Stat(id.path)
	switch {
	case err != nil:
		return fault.New(fault.Locked, "age plugin: %w", err)
	case !info.Mode().IsRegular():
		return fault.New(fault.Locked, "age plugin %q is not a program (%s)", id.path, info.Mode())
	case runtime.GOOS != "windows" && info.Mode()&0o111 == 0:
		return fault.New(fault.Locked, "age plugin %q may not be run (%s)", id.path, info.Mode()).Hint("chmod u+x %s", id.path)
	case runtime.GOOS != "windows" && info.Mode()&0o022 != 0:
		return fault.New(fault.Locked, "age plugin %q may be changed by others than its owner (%s)", id.path, info.Mode()).Hint("chmod go-w %s", id.path)
	}
	return nil
}

// Path returns the path of the program.
func (id *Identity) Path() string { return id.path }

// String returns the identity as the plugin spelt it.
func (id *Identity) String() string { return id.text }

// Unwrap implements [age.Identity]: it starts the plugin and hands it the stanzas
// of one file. A plugin that fails, or refuses, is [fault.Locked]; one whose
// identity does not fit returns [age.ErrIncorrectIdentity].
func (id *Identity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(id.ctx, id.path, "--age-plugin=identity-v1")
	cmd.Dir = os.TempDir()
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "AZS_") || strings.HasPrefix(v, "AGEDEBUG=")
	})
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, id.failed(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, id.failed(err)
	}
	if err := cmd.Start(); err != nil {
		return nil, id.failed(err)
	}
	// What the plugin started itself may hold the pipe when the plugin is gone.
	defer context.AfterFunc(id.ctx, func() { out.Close() })()
	key, err := id.talk(in, bufio.NewReaderSize(out, maxLine), stanzas)
	in.Close()
	out.Close()
	if err != nil {
		_ = cmd.Process.Kill() // it may wait for an answer that it does not get
	}
	werr := cmd.Wait()
	switch {
	case id.ctx.Err() != nil:
		return nil, id.ctx.Err()
	case err != nil && !errors.Is(err, age.ErrIncorrectIdentity):
		return nil, id.failed(err)
	case err == nil && werr != nil:
		return nil, id.failed(werr)
	}
	return key, err
}

func (id *Identity) failed(err error) error {
	if fault.KindOf(err) != fault.Unexpected {
		return err
	}
	return fault.New(fault.Locked, "age plugin %q: %w", id.path, err)
}

// talk speaks identity-v1: everything that there is to open, and then what the
// plugin asks, until it is done.
func (id *Identity) talk(to io.Writer, from *bufio.Reader, stanzas []*age.Stanza) (key []byte, err error) {
	var all bytes.Buffer
	write(&all, nil, "add-identity", id.text)
	for _, s := range stanzas {
		write(&all, s.Body, append([]string{"recipient-stanza", "0", s.Type}, s.Args...)...)
	}
	write(&all, nil, "done")
	_, _ = to.Write(all.Bytes()) // who does not listen may have said why
	for range maxAnswers {
		s, err := read(from)
		if err != nil {
			return nil, err
		}
		answer, body := []string{"ok"}, []byte(nil)
		switch s.Type {
		case "done":
			if key == nil {
				return nil, age.ErrIncorrectIdentity
			}
			return key, nil
		case "file-key":
			if len(s.Args) != 1 || s.Args[0] != "0" || key != nil || len(s.Body) != fileKey {
				return nil, errors.New("it returned no single file key")
			}
			key = s.Body
		case "error":
			return nil, fault.New(fault.Locked, "age plugin %q refuses: %q", id.path, s.Body)
		case "msg":
			id.ui.Say(string(s.Body))
		case "request-secret", "request-public":
			text, err := id.ui.Ask(string(s.Body), s.Type == "request-secret")
			if err != nil {
				answer = []string{"fail"}
			}
			body = []byte(text)
		default: // confirm among them: the plugin then asks in another way, or refuses
			answer = []string{"unsupported"}
		}
		var reply bytes.Buffer
		write(&reply, body, answer...)
		_, _ = to.Write(reply.Bytes())
	}
	return nil, fmt.Errorf("it was not done after %d answers", maxAnswers)
}

// write spells a stanza as an age header does: an arrow and words, then base64 in
// full lines and one that is not full.
func write(b *bytes.Buffer, body []byte, words ...string) {
	b.WriteString("-> " + strings.Join(words, " ") + "\n")
	text := base64.RawStdEncoding.EncodeToString(body)
	for len(text) >= columns {
		b.WriteString(text[:columns] + "\n")
		text = text[columns:]
	}
	b.WriteString(text + "\n")
}

func read(r *bufio.Reader) (*age.Stanza, error) {
	head, err := line(r)
	if err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(head, "-> ")
	words := strings.Split(rest, " ")
	if !ok || slices.Contains(words, "") {
		return nil, errors.New("it speaks another protocol")
	}
	var text strings.Builder
	for {
		l, err := line(r)
		if err != nil {
			return nil, err
		}
		if len(l) > columns || text.Len()+len(l) > maxBody {
			return nil, errors.New("it speaks another protocol")
		}
		text.WriteString(l)
		if len(l) < columns {
			break
		}
	}
	body, err := base64.RawStdEncoding.DecodeString(text.String())
	if err != nil || base64.RawStdEncoding.EncodeToString(body) != text.String() { // it decodes CR, and set bits behind the end
		return nil, errors.New("it speaks another protocol")
	}
	return &age.Stanza{Type: words[0], Args: words[1:], Body: body}, nil
}

func line(r *bufio.Reader) (string, error) {
	b, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF):
		return "", errors.New("it ended before it was done")
	case err != nil:
		return "", err
	}
	return string(b[:len(b)-1]), nil
}
