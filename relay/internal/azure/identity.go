package azure

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azs-courier/azs-courier/shared/fault"
)

// Identity is who the access token says the relay is. Nothing of it is
// verified: it is for the operator's eyes.
type Identity struct {
	ObjectID string // of the user or service principal in the tenant
	Name     string // user principal name; "" for an application
	AppID    string // application that signed in
	Tenant   string
}

// WhoAmI decodes the claims of the access token. A token that is no JWT, as no
// known cloud gives, is a [fault.Refused].
func (c *Client) WhoAmI(ctx context.Context) (Identity, error) {
	t, err := c.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.cloud.scope()}, EnableCAE: true})
	if err != nil {
		return Identity{}, err
	}
	return readIdentity(t.Token)
}

func readIdentity(token string) (Identity, error) {
	var claims struct {
		ObjectID          string `json:"oid"`
		UPN               string `json:"upn"`
		PreferredUsername string `json:"preferred_username"`
		UniqueName        string `json:"unique_name"`
		AppID             string `json:"appid"`
		AuthorizedParty   string `json:"azp"`
		Tenant            string `json:"tid"`
	}
	parts := strings.Split(token, ".")
	if len(parts) == 3 {
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err == nil && json.Unmarshal(payload, &claims) == nil {
			return Identity{
				ObjectID: claims.ObjectID,
				Name:     first(claims.UPN, claims.PreferredUsername, claims.UniqueName),
				AppID:    first(claims.AppID, claims.AuthorizedParty),
				Tenant:   claims.Tenant,
			}, nil
		}
	}
	return Identity{}, fault.New(fault.Refused, "the access token of %d bytes is not a JWT: whose it is cannot be shown", len(token))
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
