package pep

import (
	"context"
	"io"

	"github.com/azs-courier/azs-courier/agent/internal/wsman"
	"github.com/azs-courier/azs-courier/agent/internal/wsman/sealed"
)

// Dial makes the dialer of the real endpoint: WSMan shells over sealed NTLM. The
// address of the options is replaced by the one that is dialled.
func Dial(o sealed.Options, random io.Reader) Dialer {
	return func(_ context.Context, address, sessionID string) (Conn, error) {
		o := o
		o.Address = address
		if _, err := sealed.New(o); err != nil { // what is wrong with the options is said at once
			return nil, err
		}
		return wsman.New(func() (wsman.Poster, error) { return sealed.New(o) }, random, sessionID)
	}
}
