package azuretest

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// entraPath splits a path of Entra into its tenant and the rest.
func entraPath(path string) (tenant, rest string, ok bool) {
	tenant, rest, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch fold(rest) {
	case "v2.0/.well-known/openid-configuration", "oauth2/v2.0/token", "oauth2/v2.0/devicecode", "oauth2/v2.0/authorize", "discovery/v2.0/keys":
		return tenant, fold(rest), true
	}
	return "", "", false
}

// grant is what a refresh token or a device code stands for.
type grant struct {
	tenant, client, audience string
	strong                   bool // by multi-factor authentication
}

// device is a device code that waits for its user.
type device struct {
	grant
	scope   string
	polls   int // answers of authorization_pending to come
	expires time.Time
}

// entra answers the calls of https://login.microsoftonline.com.
func (s *Server) entra(c *call, tenantName, rest string) answer {
	tenant := s.tenantNames[fold(tenantName)]
	var form url.Values
	if c.Method == http.MethodPost {
		form, _ = url.ParseQuery(string(c.body))
	}
	if n := fold(tenantName); tenant == "" && (n == "organizations" || n == "common") && form.Get("grant_type") != "client_credentials" {
		tenant = s.Tenant // a user's own tenant
	}
	if tenant == "" {
		return s.entraError(400, "invalid_request", 90002,
			"Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.", tenantName)
	}
	base := s.URL + "/" + tenantName
	switch c.Method + " " + rest {
	case "GET v2.0/.well-known/openid-configuration":
		return answer{200, nil, map[string]any{
			"issuer":                                base + "/v2.0",
			"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
			"token_endpoint":                        base + "/oauth2/v2.0/token",
			"device_authorization_endpoint":         base + "/oauth2/v2.0/devicecode",
			"jwks_uri":                              base + "/discovery/v2.0/keys",
			"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"},
			"response_types_supported":              []string{"code", "id_token"},
			"id_token_signing_alg_values_supported": []string{"ES256"},
			"subject_types_supported":               []string{"pairwise"},
		}}
	case "GET discovery/v2.0/keys":
		pub, err := s.signer.PublicKey.Bytes() // 4, x, y
		if err != nil {
			panic(err) // P-256 has an encoding
		}
		return answer{200, nil, map[string]any{"keys": []map[string]string{{"kty": "EC", "use": "sig", "alg": "ES256", "crv": "P-256",
			"kid": s.signerID, "x": b64.EncodeToString(pub[1:33]), "y": b64.EncodeToString(pub[33:])}}}}
	case "GET oauth2/v2.0/authorize":
		return s.authorize(c, tenant)
	case "POST oauth2/v2.0/devicecode":
		return s.deviceCode(form, tenant, base)
	case "POST oauth2/v2.0/token":
		return s.tokenCall(form, tenant, base)
	}
	return s.entraError(http.StatusMethodNotAllowed, "invalid_request", 900561, "The endpoint only accepts POST requests. Received a %s request.", c.Method)
}

func (s *Server) tokenCall(form url.Values, tenant, base string) answer {
	switch grantType := form.Get("grant_type"); grantType {
	case "client_credentials":
		client := s.client(form.Get("client_id"))
		if client == nil {
			return s.entraError(400, "unauthorized_client", 700016,
				"Application with identifier '%s' was not found in the directory '%s'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.", form.Get("client_id"), tenant)
		}
		if a, ok := s.proveClient(client, form, base); !ok {
			return a
		}
		audience, a, ok := s.scopeAudience(form.Get("scope"))
		if !ok {
			return a
		}
		return answer{200, nil, map[string]any{"token_type": "Bearer", "expires_in": int(s.tokenLifetime.Seconds()),
			"ext_expires_in": int(s.tokenLifetime.Seconds()), "access_token": s.bearer(tenant, client.ID, client.ObjectID, "", audience, false)}}

	case "device_code", "urn:ietf:params:oauth:grant-type:device_code":
		d := s.devices[form.Get("device_code")]
		switch {
		case d == nil || !strings.EqualFold(d.client, form.Get("client_id")):
			return s.entraError(400, "bad_verification_code", 70000, "Provided grant is invalid or malformed.")
		case s.now().After(d.expires):
			return s.entraError(400, "expired_token", 70020, "The provided value for the input parameter 'device_code' is not valid. This device code has expired.")
		case d.polls > 0:
			d.polls--
			return s.entraError(400, "authorization_pending", 70016, "OAuth 2.0 device flow error. Authorization is pending. Continue polling.")
		}
		delete(s.devices, form.Get("device_code"))
		d.strong = d.strong || asksStepUp(form.Get("claims"))
		return s.userToken(d.grant, d.scope)

	case "authorization_code":
		return s.redeem(form)

	case "refresh_token":
		old := form.Get("refresh_token")
		g, ok := s.refresh[old]
		if !ok || !strings.EqualFold(g.client, form.Get("client_id")) {
			return s.entraError(400, "invalid_grant", 70000, "Provided grant is invalid or malformed.")
		}
		audience, a, ok := s.scopeAudience(form.Get("scope"))
		if !ok {
			return a
		}
		if asksStepUp(form.Get("claims")) && !g.strong {
			return s.entraError(400, "interaction_required", 50076, "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access '%s'.", audience)
		}
		g.audience, g.tenant = audience, tenant
		return s.userToken(g, form.Get("scope"))

	default:
		return s.entraError(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '%s'.", grantType)
	}
}

func (s *Server) deviceCode(form url.Values, tenant, base string) answer {
	if form.Get("client_id") == "" {
		return s.entraError(400, "invalid_request", 900144, "The request body must contain the following parameter: 'client_id'.")
	}
	audience, a, ok := s.scopeAudience(form.Get("scope"))
	if !ok {
		return a
	}
	code, user := newGUID(), strings.ToUpper(newGUID()[:8])
	const life = 15 * time.Minute
	s.devices[code] = &device{grant: grant{tenant, form.Get("client_id"), audience, asksStepUp(form.Get("claims"))}, scope: form.Get("scope"),
		polls: s.devicePolls, expires: s.now().Add(life)}
	return answer{200, nil, map[string]any{
		"device_code": code, "user_code": user, "verification_uri": base + "/device", "expires_in": int(life.Seconds()), "interval": 1,
		"message": fmt.Sprintf("To sign in, use a web browser to open the page %s/device and enter the code %s to authenticate.", base, user)}}
}

// userToken answers a grant of the user. client_info names the account for
// MSAL's cache; the refresh token is new each time and the older stay good, as
// Entra does it.
func (s *Server) userToken(g grant, scope string) answer {
	refresh := newGUID() + newGUID()
	s.refresh[refresh] = g
	now := s.now()
	return answer{200, nil, map[string]any{
		"token_type": "Bearer", "scope": scope, "expires_in": int(s.tokenLifetime.Seconds()), "ext_expires_in": int(s.tokenLifetime.Seconds()),
		"access_token":  s.bearer(g.tenant, g.client, s.user.ObjectID, s.user.Name, g.audience, g.strong),
		"refresh_token": refresh,
		"client_info":   b64.EncodeToString(encode(map[string]string{"uid": s.user.ObjectID, "utid": g.tenant})),
		"id_token": signES256(s.signer, s.signerID, map[string]any{
			"aud": g.client, "iss": s.URL + "/" + g.tenant + "/v2.0", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(s.tokenLifetime).Unix(),
			"oid": s.user.ObjectID, "tid": g.tenant, "sub": s.user.ObjectID, "preferred_username": s.user.Name, "name": s.user.Name, "ver": "2.0"}),
	}}
}

func (s *Server) client(id string) *Client {
	for _, c := range s.clients {
		if strings.EqualFold(c.ID, id) {
			return c
		}
	}
	return nil
}

// audiences are what a bearer for Resource Manager may be made out to.
func (s *Server) audiences() []string { return []string{s.Audience, s.URL, s.URL + "/"} }

// graph is the other resource that every tenant knows: Entra gives bearers for
// it, and Resource Manager refuses them.
const graph = "https://graph.microsoft.com"

// scopeAudience gives the audience of a scope parameter: the one resource in
// it, without /.default.
func (s *Server) scopeAudience(scope string) (string, answer, bool) {
	for _, one := range strings.Fields(scope) {
		switch one {
		case "openid", "profile", "offline_access", "email":
			continue
		}
		audience, ok := strings.CutSuffix(one, "/.default")
		if !ok {
			audience = strings.TrimSuffix(one, "/user_impersonation")
		}
		if audience != graph && !slices.Contains(s.audiences(), audience) {
			return "", s.entraError(400, "invalid_resource", 500011,
				"The resource principal named %s was not found in the tenant named %s. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant.", audience, s.Tenant), false
		}
		return audience, answer{}, true
	}
	return "", s.entraError(400, "invalid_scope", 70011, "The provided value for the input parameter 'scope' is not valid. The scope '%s' is not valid.", scope), false
}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// proveClient checks the secret or the certificate assertion (RFC 7523) of a
// client.
func (s *Server) proveClient(client *Client, form url.Values, base string) (answer, bool) {
	invalid := func(code int, format string, args ...any) (answer, bool) {
		return s.entraError(401, "invalid_client", code, format, args...), false
	}
	if assertion := form.Get("client_assertion"); assertion != "" {
		if t := form.Get("client_assertion_type"); t != assertionType {
			return s.entraError(400, "invalid_request", 900144, "The parameter 'client_assertion_type' is '%s', expected '%s'.", t, assertionType), false
		}
		if slices.Contains(client.Federated, assertion) {
			return answer{}, true
		}
		head, payload, sig, signed, err := splitJWS(assertion)
		if err != nil {
			return invalid(50027, "JWT token is invalid or malformed: %v.", err)
		}
		cert := findCertificate(client.Certificates, head)
		if cert == nil {
			return invalid(700027, "Client assertion contains an invalid signature. [Reason - The key was not found., Thumbprint of key used by client: '%X']", thumbprint(or(head.X5T, head.X5TS256)))
		}
		pub, ok := cert.PublicKey.(*rsa.PublicKey)
		if !ok || verifyRSA(pub, head.Alg, signed, sig) != nil {
			return invalid(700027, "Client assertion contains an invalid signature. [Reason - The provided signature value did not match the expected signature value., Thumbprint of key used by client: '%X']", thumbprint(or(head.X5T, head.X5TS256)))
		}
		var claims struct {
			Aud, Iss, Sub string
			Nbf, Exp      int64
		}
		if err := json.Unmarshal(payload, &claims); err != nil {
			return invalid(50027, "JWT token is invalid or malformed: %v.", err)
		}
		now := s.now().Unix()
		switch {
		case !strings.EqualFold(claims.Iss, client.ID) || !strings.EqualFold(claims.Sub, client.ID):
			return invalid(700021, "Client assertion application identifier doesn't match 'client_id' parameter.")
		case claims.Aud != base+"/oauth2/v2.0/token" && claims.Aud != base+"/v2.0":
			return invalid(700023, "Client assertion audience claim does not match Realm issuer. The audience is '%s'.", claims.Aud)
		case now > claims.Exp || now+300 < claims.Nbf:
			return invalid(700024, "Client assertion is not within its valid time range. Current time: %s, expiry time of assertion %s.",
				s.now().UTC().Format(time.RFC3339), time.Unix(claims.Exp, 0).UTC().Format(time.RFC3339))
		}
		return answer{}, true
	}
	secret := form.Get("client_secret")
	switch {
	case secret == "":
		return invalid(7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	case client.Secret == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(client.Secret)) != 1:
		return invalid(7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", client.ID)
	case !client.SecretExpires.IsZero() && s.now().After(client.SecretExpires):
		return invalid(7000222, "The provided client secret keys for app '%s' are expired. Visit the Azure portal to create new keys for your app, or consider using certificate credentials for added security.", client.ID)
	}
	return answer{}, true
}

// findCertificate finds the certificate that x5t (SHA-1) or x5t#S256 names.
func findCertificate(certs []*x509.Certificate, head jwsHeader) *x509.Certificate {
	short, long := thumbprint(head.X5T), thumbprint(head.X5TS256)
	for _, c := range certs {
		one, two := sha1.Sum(c.Raw), sha256.Sum256(c.Raw)
		if bytes.Equal(short, one[:]) || bytes.Equal(long, two[:]) {
			return c
		}
	}
	return nil
}

// thumbprint decodes x5t or x5t#S256. RFC 7515 wants base64url; MSAL for Go
// writes standard base64 with padding, and Entra takes both.
func thumbprint(s string) []byte {
	raw, _ := b64.DecodeString(strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(s))
	return raw
}

// entraError is Entra's error answer: the OAuth code with the AADSTS number and
// text (RFC 6749 section 5.2 with Microsoft's extra fields).
func (s *Server) entraError(status int, oauth string, number int, format string, args ...any) answer {
	trace, correlation, now := newGUID(), newGUID(), s.now().UTC().Format("2006-01-02 15:04:05Z")
	description := fmt.Sprintf("AADSTS%d: ", number) + fmt.Sprintf(format, args...) +
		fmt.Sprintf(" Trace ID: %s Correlation ID: %s Timestamp: %s", trace, correlation, now)
	return answer{status, nil, map[string]any{"error": oauth, "error_description": description, "error_codes": []int{number},
		"timestamp": now, "trace_id": trace, "correlation_id": correlation, "error_uri": fmt.Sprintf("%serror?code=%d", s.Authority, number)}}
}

// claims is the payload of a bearer.
type claims struct {
	Aud   string   `json:"aud"`
	Iss   string   `json:"iss"`
	Iat   int64    `json:"iat"`
	Nbf   int64    `json:"nbf"`
	Exp   int64    `json:"exp"`
	AppID string   `json:"appid"`
	IDTyp string   `json:"idtyp"`
	OID   string   `json:"oid"`
	TID   string   `json:"tid"`
	UPN   string   `json:"upn,omitempty"`
	ACRS  []string `json:"acrs,omitempty"`
	Ver   string   `json:"ver"`
}

func (s *Server) issuer(tenant string) string { return s.URL + "/" + tenant + "/" }

func (s *Server) bearer(tenant, client, oid, upn, audience string, strong bool) string {
	now, kind := s.now(), "app"
	var acrs []string
	if strong {
		acrs = []string{"p1"}
	}
	if upn != "" {
		kind = "user"
	}
	return signES256(s.signer, s.signerID, claims{Aud: audience, Iss: s.issuer(tenant), Iat: now.Unix(), Nbf: now.Unix(),
		Exp: now.Add(s.tokenLifetime).Unix(), AppID: client, IDTyp: kind, OID: oid, TID: tenant, UPN: upn, ACRS: acrs, Ver: "1.0"})
}

// principal is who a bearer speaks for.
type principal struct {
	claims
	actions, notActions []string
}

// authenticate checks the bearer of a call: 401 with WWW-Authenticate when it
// will not do.
func (s *Server) authenticate(c *call) (*principal, answer) {
	refuse := func(code, format string, args ...any) (*principal, answer) {
		a := fail(http.StatusUnauthorized, code, format, args...)
		a.header = map[string]string{"Www-Authenticate": s.challenge(s.Tenant, "invalid_token", fmt.Sprintf(format, args...))}
		return nil, a
	}
	scheme, token, _ := strings.Cut(c.Header.Get("Authorization"), " ")
	switch {
	case token == "":
		return refuse("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
	case !strings.EqualFold(scheme, "Bearer"):
		return refuse("AuthenticationFailed", "Authentication failed. The 'Authorization' header is provided in an invalid format.")
	}
	p := &principal{}
	if err := verifyES256(&s.signer.PublicKey, token, &p.claims); err != nil {
		return refuse("InvalidAuthenticationToken", "The access token is invalid.")
	}
	now := s.now()
	switch {
	case !slices.Contains(s.audiences(), p.Aud):
		return refuse("InvalidAuthenticationTokenAudience", "The access token has been obtained for wrong audience or resource '%s'. It should exactly match with one of the allowed audiences '%s'.", p.Aud, strings.Join(s.audiences(), "','"))
	case now.Unix() >= p.Exp:
		return refuse("ExpiredAuthenticationToken", "The access token expiry UTC time '%s' is earlier than current UTC time '%s'.", amz(time.Unix(p.Exp, 0)), amz(now))
	case now.Unix()+300 < p.Nbf:
		return refuse("InvalidAuthenticationToken", "The access token is not yet valid.")
	}
	if p.UPN != "" {
		p.actions, p.notActions = s.user.Actions, s.user.NotActions
	} else if client := s.client(p.AppID); client != nil {
		p.actions, p.notActions = client.Actions, client.NotActions
	}
	if len(p.actions) == 0 {
		p.actions = []string{"*"}
	}
	return p, answer{}
}

// amz is the spelling of a time in Azure's texts: 8/28/2026 3:00:00 PM.
func amz(t time.Time) string { return t.UTC().Format("1/2/2006 3:04:05 PM") }

// challenge is the WWW-Authenticate header of a 401.
func (s *Server) challenge(tenant, code, description string) string {
	return fmt.Sprintf(`Bearer authorization_uri="%s%s", error="%s", error_description="%s"`,
		s.Authority, tenant, code, strings.ReplaceAll(description, `"`, `'`))
}

// may reports whether a principal's role covers an action (Azure's rule:
// some action matches and no notAction does; * is any run of characters).
func (p *principal) may(action string) bool {
	covers := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(a string) bool { return glob(fold(a), fold(action)) })
	}
	return covers(p.actions) && !covers(p.notActions)
}

// caller is the name and object id by which a refusal names who asked.
func (s *Server) caller(c *call) (name, oid string) {
	if c.who == nil {
		return s.ClientID, s.clients[0].ObjectID
	}
	return or(c.who.UPN, c.who.AppID), c.who.OID
}
