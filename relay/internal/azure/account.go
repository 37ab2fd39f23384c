package azure

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// tokenCacheName tells our cache from those of other programs.
const tokenCacheName = "azs-relay"

// A person who signed in by device code or browser is found in the token cache
// by the account: tenant, user name and ids, and no secret. It lies in a file of
// its own, so that the next run asks nobody.

// readAccount reads the account file. One that is missing, or of another
// authority or tenant, is no account: the person signs in again. Tokens of another
// application are not found in the cache, which knows them by it.
func readAccount(o Options, authority string) azidentity.AuthenticationRecord {
	var r azidentity.AuthenticationRecord
	file, err := accountFile()
	if err != nil {
		return r
	}
	raw, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(raw, &r) != nil ||
		!strings.EqualFold(strings.TrimRight(r.Authority, "/"), strings.TrimRight(authority, "/")) ||
		guid.MatchString(o.Tenant) && !strings.EqualFold(r.TenantID, o.Tenant) {
		return azidentity.AuthenticationRecord{}
	}
	return r
}

// keepAccount signs in and writes the account file, unless there is an account
// already.
func keepAccount(ctx context.Context, cred azcore.TokenCredential, known azidentity.AuthenticationRecord, scope string) error {
	a, ok := cred.(interface {
		Authenticate(context.Context, *policy.TokenRequestOptions) (azidentity.AuthenticationRecord, error)
	})
	if !ok || known != (azidentity.AuthenticationRecord{}) {
		return nil
	}
	r, err := a.Authenticate(ctx, &policy.TokenRequestOptions{Scopes: []string{scope}, EnableCAE: true})
	if err != nil {
		return err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fault.New(fault.Unexpected, "the account cannot be written down: %w", err)
	}
	file, err := accountFile()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err != nil {
		return fault.New(fault.Medium, "the account cannot be remembered: %w", err)
	}
	if err := os.WriteFile(file, append(raw, '\n'), 0o600); err != nil {
		return fault.New(fault.Medium, "the account cannot be remembered: %w", err)
	}
	return nil
}

// Logout removes our token cache and the account beside it and returns the files
// that it removed. Other programs' sign-ins, such as that of the Azure CLI, stay.
func Logout() ([]string, error) {
	account, err := accountFile()
	if err != nil {
		return nil, fault.New(fault.Medium, "the folder of the token cache is unknown: %w", err)
	}
	var gone []string
	for _, f := range []string{account, filepath.Join(filepath.Dir(account), tokenCacheName), filepath.Join(filepath.Dir(account), tokenCacheName+".cae")} {
		switch err := os.Remove(f); {
		case err == nil:
			gone = append(gone, f)
		case !errors.Is(err, fs.ErrNotExist):
			return gone, fault.New(fault.Medium, "the token cache cannot be removed: %w", err)
		}
	}
	return gone, nil
}

func accountFile() (string, error) {
	dir, err := tokenCacheDir()
	return filepath.Join(dir, ".IdentityService", tokenCacheName+".account.json"), err
}

// tokenCacheDir is where azidentity/cache puts its files: see its cache_linux.go
// and cache_windows.go.
func tokenCacheDir() (string, error) {
	switch runtime.GOOS {
	case "windows":
		return os.UserCacheDir() // %LocalAppData%
	case "linux":
		if d := os.Getenv("XDG_CACHE_HOME"); d != "" {
			return d, nil
		}
		home, err := os.UserHomeDir()
		return filepath.Join(home, ".cache"), err
	}
	return os.UserHomeDir()
}
