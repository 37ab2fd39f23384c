package console

import (
	"errors"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/azs-courier/azs-courier/shared/fault"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// MinPassphrase is the fewest characters of a new passphrase. It keeps out slips
// and empty lines; it does not make a passphrase strong, length and chance do.
const MinPassphrase = 8

var (
	errInterrupted = errors.New("interrupted at the prompt")
	errNoTerminal  = errors.New("there is no terminal")
)

// Passphrase asks for the passphrase of a key. Where nothing can be asked it
// fails with [fault.Locked] and the hint --passphrase-file.
func (c *Console) Passphrase(prompt string) (secret.Text, error) {
	return c.Secret(prompt, "--passphrase-file F")
}

// Secret asks for a secret without showing what is typed. Where nothing can be
// asked it fails with [fault.Locked] and names the flag that answers instead,
// for example "--pep-password-file F".
func (c *Console) Secret(prompt, flag string) (secret.Text, error) {
	line, err := c.read(fault.Locked, prompt, flag, false)
	if err != nil {
		return secret.Text{}, err
	}
	if line == "" {
		return secret.Text{}, fault.New(fault.Locked, "nothing was typed at %q", prompt).Hint("%s … %s", c.opt.Command, flag)
	}
	return secret.New(line), nil
}

// NewPassphrase asks twice for a new passphrase, which must agree and satisfy
// [CheckPassphrase].
func (c *Console) NewPassphrase(prompt string) (secret.Text, error) {
	first, err := c.Passphrase(prompt)
	if err != nil {
		return secret.Text{}, err
	}
	if err := CheckPassphrase(first); err != nil {
		return secret.Text{}, err
	}
	second, err := c.Passphrase(prompt + " (again)")
	if err != nil {
		return secret.Text{}, err
	}
	if first != second {
		return secret.Text{}, fault.New(fault.Usage, "the two passphrases differ").Hint("%s", c.opt.Command)
	}
	return first, nil
}

// CheckPassphrase refuses a new passphrase of fewer than [MinPassphrase]
// characters with [fault.Usage]; the error tells the count and nothing else.
func CheckPassphrase(p secret.Text) error {
	if n := utf8.RuneCountInString(p.Reveal()); n < MinPassphrase {
		return fault.New(fault.Usage, "the new passphrase has %d characters, fewer than %d", n, MinPassphrase)
	}
	return nil
}

// Ask asks for a line that may be seen and returns it without surrounding
// blanks. Where nothing can be asked it fails with [fault.Usage] and names the
// flag that answers instead, for example "--expect-words W".
func (c *Console) Ask(prompt, flag string) (string, error) {
	line, err := c.read(fault.Usage, prompt, flag, true)
	return strings.TrimSpace(line), err
}

// CanAsk reports whether a question would reach a person.
func (c *Console) CanAsk() bool { return !c.opt.JSON && !c.opt.NoPrompt && c.prompting }

// Confirm asks a question that only "y" or "yes" answers with true. Where
// nothing can be asked it fails as [Console.Ask] does.
func (c *Console) Confirm(prompt, flag string) (bool, error) {
	line, err := c.Ask(prompt+" [y/N]", flag)
	if err != nil {
		return false, err
	}
	return strings.EqualFold(line, "y") || strings.EqualFold(line, "yes"), nil
}

// read asks on the terminal and returns the line without its end.
func (c *Console) read(missing fault.Kind, prompt, flag string, echo bool) (string, error) {
	cannot := func(why string) error {
		return fault.New(missing, "%q cannot be asked: %s", prompt, why).Hint("%s … %s", c.opt.Command, flag)
	}
	switch {
	case c.opt.JSON:
		return "", cannot("--json never prompts")
	case !c.CanAsk():
		return "", cannot(errNoTerminal.Error())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	t, err := openTerminal()
	if err != nil {
		return "", cannot(errNoTerminal.Error())
	}
	defer t.Close()
	line, err := t.ask(strings.TrimRight(Clean(prompt), ": ")+": ", echo, c.opt.Stop)
	switch {
	case errors.Is(err, errInterrupted) || errors.Is(err, io.EOF):
		return "", fault.New(fault.Cancelled, "stopped at %q", prompt)
	case err != nil:
		return "", fault.New(missing, "%q got no answer: %w", prompt, err).Hint("%s … %s", c.opt.Command, flag)
	}
	line = strings.TrimRight(line, "\r\n")
	// An arrow key or a stray escape inside a hidden line would make it a
	// different secret without anybody seeing why.
	if !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
		return "", fault.New(missing, "the answer to %q holds a control character or is not UTF-8", prompt).Hint("%s", c.opt.Command)
	}
	return line, nil
}
