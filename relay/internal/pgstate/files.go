package pgstate

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// ReadFile returns a file of identity or peers.
func (d *DB) ReadFile(name string, limit int64) ([]byte, error) {
	return d.one("file", `select data from azs_courier.files where name = $1`, name, limit)
}

// WriteFile makes or replaces a file. Who may read it is the database's to say.
func (d *DB) WriteFile(name string, data []byte, _ bool) error {
	return d.do("write a file in", func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `insert into azs_courier.files (name, data) values ($1, $2) on conflict (name) do update set data = excluded.data`, name, data)
		return err
	})
}

// RenameFile replaces the file at to.
func (d *DB) RenameFile(from, to string) error {
	return d.do("rename a file in", func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `with moved as (delete from azs_courier.files where name = $1 returning data)
			insert into azs_courier.files (name, data) select $2, data from moved on conflict (name) do update set data = excluded.data`, from, to)
		return err
	})
}

// RemoveFile removes a file; one that is not there is fine.
func (d *DB) RemoveFile(name string) error {
	return d.do("remove a file in", func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `delete from azs_courier.files where name = $1`, name)
		return err
	})
}

// FileNames returns the names of the files below peers, sorted.
func (d *DB) FileNames() ([]string, error) {
	return d.names("list the peers in", `select name from azs_courier.files where starts_with(name, 'peers/') order by name`)
}
