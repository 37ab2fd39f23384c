package azuretest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// authorization is a code that was handed to a browser.
type authorization struct {
	grant
	scope, redirect string
	challenge       string // S256 of the verifier, RFC 7636
	expires         time.Time
}

// stepUp is the claim by which Azure asks for multi-factor authentication: the
// authentication context p1.
const stepUp = `{"access_token":{"acrs":{"essential":true,"value":"p1"}}}`

// asksStepUp reports whether a claims parameter asks for it.
func asksStepUp(claims string) bool {
	var c struct {
		AccessToken struct {
			ACRS struct {
				Value string `json:"value"`
			} `json:"acrs"`
		} `json:"access_token"`
	}
	return json.Unmarshal([]byte(claims), &c) == nil && c.AccessToken.ACRS.Value == "p1"
}

// page is what Entra's page does at its end: it posts the code to the client
// that listens on loopback (OAuth 2.0 Form Post Response Mode).
var page = template.Must(template.New("").Parse(`<html><head><title>Working...</title></head><body><form method="POST" name="hiddenform" action="{{.Action}}">` +
	`<input type="hidden" name="code" value="{{.Code}}" /><input type="hidden" name="state" value="{{.State}}" />` +
	`<noscript><p>Script is disabled. Click Submit to continue.</p><input type="submit" value="Submit" /></noscript></form>` +
	`<script language="javascript">document.forms[0].submit();</script></body></html>`))

// htmlBody is a body that is not JSON.
type htmlBody []byte

// authorize is the page of the sign-in. The user is there, knows the password,
// and has a second factor when it is asked for.
func (s *Server) authorize(c *call, tenant string) answer {
	q := c.URL.Query()
	redirect, err := url.Parse(q.Get("redirect_uri"))
	switch {
	case q.Get("client_id") == "":
		return s.entraError(400, "invalid_request", 900144, "The request body must contain the following parameter: 'client_id'.")
	case q.Get("response_type") != "code" || q.Get("response_mode") != "form_post":
		return s.entraError(400, "unsupported_response_type", 700054, "response_type '%s' or response_mode '%s' is not enabled for the application.", q.Get("response_type"), q.Get("response_mode"))
	case err != nil || redirect.Scheme != "http" || redirect.Hostname() != "localhost" && redirect.Hostname() != "127.0.0.1":
		return s.entraError(400, "invalid_client", 50011, "The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application '%s'.", q.Get("redirect_uri"), q.Get("client_id"))
	case q.Get("code_challenge") == "" || q.Get("code_challenge_method") != "S256":
		return s.entraError(400, "invalid_request", 501481, "Proof Key for Code Exchange is required for cross-origin authorization code redemption.")
	}
	audience, refused, ok := s.scopeAudience(q.Get("scope"))
	if !ok {
		return refused
	}
	code := newGUID() + "." + newGUID()
	s.codes[code] = &authorization{grant: grant{tenant, q.Get("client_id"), audience, asksStepUp(q.Get("claims"))}, scope: q.Get("scope"),
		redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), expires: s.now().Add(10 * time.Minute)}
	var b bytes.Buffer
	if err := page.Execute(&b, map[string]any{"Action": template.URL(redirect.String()), "Code": code, "State": q.Get("state")}); err != nil {
		return fail(500, "InternalServerError", "%v", err)
	}
	return answer{200, nil, htmlBody(b.Bytes())}
}

// redeem answers grant_type=authorization_code. A code is good once.
func (s *Server) redeem(form url.Values) answer {
	a := s.codes[form.Get("code")]
	delete(s.codes, form.Get("code"))
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	switch {
	case a == nil || !strings.EqualFold(a.client, form.Get("client_id")):
		return s.entraError(400, "invalid_grant", 70000, "Provided grant is invalid or malformed.")
	case s.now().After(a.expires):
		return s.entraError(400, "invalid_grant", 70008, "The provided authorization code or refresh token has expired due to inactivity.")
	case a.redirect != form.Get("redirect_uri"):
		return s.entraError(400, "invalid_grant", 50011, "The redirect URI '%s' does not match that of the authorization request.", form.Get("redirect_uri"))
	case subtle.ConstantTimeCompare([]byte(b64.EncodeToString(sum[:])), []byte(a.challenge)) != 1:
		return s.entraError(400, "invalid_grant", 501481, "The Code_Verifier does not match the code_challenge supplied in the authorization request.")
	}
	return s.userToken(a.grant, a.scope)
}

// strongEnough refuses a person's change without multi-factor authentication by
// the claims challenge that a client must take to Entra.
func (s *Server) strongEnough(c *call) (answer, bool) {
	if !s.mandatoryMFA || c.Method == http.MethodGet || c.who.UPN == "" || slices.Contains(c.who.ACRS, "p1") {
		return answer{}, true
	}
	verb := map[string]string{http.MethodDelete: "Delete", http.MethodPut: "Create"}[c.Method]
	a := fail(http.StatusUnauthorized, "RequestDisallowedByAzure", "Resource '%s' was disallowed by Azure: Users must use MFA for %s operation. Users must authenticate with multi-factor authentication to create, update or delete resources. To learn more, see https://aka.ms/mfaforazure.",
		c.URL.Path[strings.LastIndexByte(c.URL.Path, '/')+1:], or(verb, "Update"))
	a.header = map[string]string{"Www-Authenticate": fmt.Sprintf(`Bearer realm="", authorization_uri="%scommon/oauth2/authorize", error="insufficient_claims", claims="%s"`,
		s.Authority, base64.StdEncoding.EncodeToString([]byte(stepUp)))}
	return a, false
}

var hidden = regexp.MustCompile(`<input type="hidden" name="(\w+)" value="([^"]*)"`)
var action = regexp.MustCompile(`<form method="POST" name="hiddenform" action="([^"]*)"`)

// Browse does what a browser and its user do with a sign-in page: it opens the
// page with a client that trusts the server and posts the form to the program
// that waits on loopback. With `azuretest browse` a script can stand in for the
// system's browser.
func Browse(ctx context.Context, client *http.Client, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	to := action.FindSubmatch(body)
	if res.StatusCode != http.StatusOK || to == nil {
		return fmt.Errorf("the sign-in page answered %s: %s", res.Status, body)
	}
	form := url.Values{}
	for _, m := range hidden.FindAllSubmatch(body, -1) {
		form.Set(string(m[1]), html.UnescapeString(string(m[2])))
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, html.UnescapeString(string(to[1])), strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	post.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	back, err := client.Do(post)
	if err != nil {
		return err
	}
	defer back.Body.Close()
	if back.StatusCode != http.StatusOK {
		return fmt.Errorf("the program that signs in answered %s", back.Status)
	}
	return nil
}
