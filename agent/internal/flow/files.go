package flow

import (
	"context"

	"github.com/azs-courier/azs-courier/shared/bundle"
	"github.com/azs-courier/azs-courier/shared/medium"
	"github.com/azs-courier/azs-courier/shared/official"
	"github.com/azs-courier/azs-courier/shared/secret"
)

// TokenFile is a [Source]: the path of a file that Get-AzsRegistrationToken
// wrote.
type TokenFile string

// Token reads the file. It tells nothing of the stamp but what the token says.
func (f TokenFile) Token(context.Context) (*official.Token, Stamp, error) {
	raw, err := medium.ReadText(string(f), official.MaxRaw)
	if err != nil {
		return nil, Stamp{}, err
	}
	t, err := official.ReadToken(raw)
	return t, Stamp{}, err
}

// KeyFile is a [Sink]: the path of a file for New-AzsActivationResource.
type KeyFile string

// Check refuses a path at which another file stands.
func (f KeyFile) Check(_ context.Context, _ string, key secret.Text) error {
	return medium.CheckSave(string(f), official.Write(key))
}

// Apply writes the key, or finds it written.
func (f KeyFile) Apply(_ context.Context, key secret.Text, _ Past) (string, error) {
	return bundle.OutcomeWritten, medium.Save(string(f), official.Write(key), true)
}
