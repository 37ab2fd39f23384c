package pgstate

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Address says which database, and how to sign in. Its zero value is none.
type Address struct {
	config *pgx.ConnConfig
	name   string

	// Warning is about a connection that could be listened to, or "".
	Warning string
}

// ParseURL reads a URL of the form postgres://USER@HOST:PORT/DATABASE?…, as
// PostgreSQL's own programs take it, with the variables PGHOST, PGPASSFILE, … for
// what it leaves out. A password in it is refused with [fault.Usage]: other
// accounts of the machine can read a command line.
func ParseURL(raw string) (Address, error) {
	u, err := split(raw)
	if err != nil {
		return Address{}, err
	}
	_, inUser := u.User.Password()
	if q := u.Query(); inUser || q.Has("password") || q.Has("sslpassword") {
		return Address{}, fault.New(fault.Usage, "the URL of the shared state holds a password, and others may read a command line").
			Hint("a password file named by PGPASSFILE, or azs-relay --state-file FILE …")
	}
	return parse(raw, u)
}

// ParseSecret reads the URL out of a file that only its owner can read; it may
// hold a password. Its errors tell nothing of it.
func ParseSecret(raw string) (Address, error) {
	u, err := split(strings.TrimSpace(raw))
	if err != nil {
		return Address{}, err
	}
	a, err := parse(strings.TrimSpace(raw), u)
	if err != nil {
		return Address{}, errURL
	}
	return a, nil
}

var errURL error = fault.New(fault.Usage, "the shared state is named by a URL that cannot be used; it has the form postgres://USER@HOST:PORT/DATABASE")

func split(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || u.Opaque != "" {
		return nil, errURL // without the reason, which repeats the URL
	}
	return u, nil
}

// parse fills in what the URL leaves to us. Over a network the server has to show
// a certificate for its name, unless the operator chose another sslmode.
func parse(raw string, u *url.URL) (Address, error) {
	q := u.Query()
	mode := q.Get("sslmode")
	if mode == "" {
		mode = os.Getenv("PGSSLMODE")
	}
	config, err := pgx.ParseConfig(raw)
	remote := err == nil && isRemote(config)
	if remote && mode == "" && q.Get("service") == "" {
		mode = "verify-full"
		q.Set("sslmode", mode)
		with := *u
		with.RawQuery = q.Encode()
		config, err = pgx.ParseConfig(with.String())
	}
	if err != nil {
		return Address{}, fault.New(fault.Usage, "the URL of the shared state cannot be used: %w", err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	for name, value := range map[string]string{
		"application_name":              fmt.Sprintf("azs-relay %s %d", host, os.Getpid()),
		"search_path":                   "pg_catalog",
		"default_transaction_isolation": "read committed",
		"idle_session_timeout":          "0",
		// A host that is gone without a word loses its claims after half a minute.
		"tcp_keepalives_idle":     "10",
		"tcp_keepalives_interval": "5",
		"tcp_keepalives_count":    "4",
	} {
		if name != "application_name" || config.RuntimeParams[name] == "" {
			config.RuntimeParams[name] = value
		}
	}
	a := Address{config: config, name: fmt.Sprintf("database %q on %s", config.Database, config.Host)}
	if remote && mode != "verify-full" {
		a.Warning = fmt.Sprintf("the connection to the %s is made with sslmode=%s: who stands between can read and change the state; verify-full is the default", a.name, mode)
	}
	return a, nil
}

// isRemote reports whether a way to the server leaves the machine.
func isRemote(config *pgx.ConnConfig) bool {
	hosts := []string{config.Host}
	for _, f := range config.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, host := range hosts {
		ip, err := netip.ParseAddr(host)
		local := strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || err == nil && ip.IsLoopback()
		if !local {
			return true
		}
	}
	return false
}
