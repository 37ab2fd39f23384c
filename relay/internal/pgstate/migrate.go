package pgstate

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"path"

	"github.com/jackc/pgx/v5"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Each file is one version of the schema, in the order of their names.
//
//go:embed migrations/*.sql
var migrations embed.FS

var errNotMade = errors.New("the tables were not made yet")

// migrate brings the schema up to the version of this program, in one transaction
// under a lock, so that of several relays that start at once one does it.
func migrate(ctx context.Context, conn *pgx.Conn, make bool) error {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return err
	}
	have, err := schemaVersion(ctx, conn)
	switch {
	case err != nil:
		return err
	case have == len(files):
		return nil
	case have > len(files):
		return fault.New(fault.Permanent, "the shared state has the schema version %d, this program knows %d: a newer azs-relay works with it", have, len(files)).Hint("azs-relay version")
	case have == 0 && !make:
		return errNotMade
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, lockOf("schema")); err != nil {
			return err
		}
		have, err := schemaVersion(ctx, tx)
		if err != nil {
			return err
		}
		for version := have + 1; version <= len(files); version++ {
			name := files[version-1].Name()
			sql, err := migrations.ReadFile(path.Join("migrations", name))
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, string(sql), pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if _, err := tx.Exec(ctx, `insert into azs_courier.migrations (version) values ($1)`, version); err != nil {
				return err
			}
		}
		return nil
	})
}

// schemaVersion is 0 where there are no tables.
func schemaVersion(ctx context.Context, q interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) (version int, err error) {
	var there bool
	// Not to_regclass, whose cached answer another relay's commit does not change.
	if err := q.QueryRow(ctx, `select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where n.nspname = 'azs_courier' and c.relname = 'migrations')`).Scan(&there); err != nil || !there {
		return 0, err
	}
	err = q.QueryRow(ctx, `select coalesce(max(version), 0) from azs_courier.migrations`).Scan(&version)
	return version, err
}
