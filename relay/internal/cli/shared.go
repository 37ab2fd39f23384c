package cli

import (
	"context"
	"fmt"

	"github.com/azs-courier/azs-courier/relay/internal/pgstate"
	"github.com/azs-courier/azs-courier/shared/appkit"
)

// shared opens the state that several relay hosts have in one database.
func shared(ctx context.Context, e *appkit.Env, a appkit.SharedAddress) (appkit.Shared, error) {
	var at pgstate.Address
	var err error
	if a.File == "" {
		at, err = pgstate.ParseURL(a.URL)
	} else {
		raw, rerr := e.LoadSecretFile(a.File)
		if rerr != nil {
			return nil, rerr
		}
		if at, err = pgstate.ParseSecret(raw.Reveal()); err != nil {
			err = fmt.Errorf("%q: %w", a.File, err)
		}
	}
	if err != nil {
		return nil, err
	}
	if at.Warning != "" {
		e.Console.Warn("%s", at.Warning)
	}
	db, err := pgstate.Open(ctx, at, a.Make)
	if err != nil {
		return nil, err
	}
	return db, nil
}
