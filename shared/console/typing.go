package console

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Typing returns standard input for what a machine types, such as a handheld
// scanner. At a terminal it is no longer echoed, so that it does not run through
// the progress line, and no longer edited by lines, because a terminal keeps only
// the first 1,024 (macOS) or 4,096 bytes of one; Ctrl-D arrives as a character,
// 4. end puts the terminal back; interactive says whether there is one.
func (c *Console) Typing() (in io.Reader, end func(), interactive bool, err error) {
	f, ok := c.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return c.stdin, func() {}, false, nil
	}
	if end, err = quiet(f); err != nil {
		return nil, nil, true, fault.New(fault.Medium, "the terminal cannot be read key by key: %w", err)
	}
	return f, end, true, nil
}
