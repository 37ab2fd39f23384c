package peptest

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
)

// This file unwraps NTLM messages from SPNEGO (RFC 4178) and wraps the answers,
// for clients that negotiate. Windows takes both forms, and so does a Server.

var (
	oidSPNEGO = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 2}
	oidNTLM   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 2, 10}
)

// States of a NegTokenResp.
const (
	completed  = 0
	incomplete = 1
)

type negTokenInit struct {
	MechTypes   asn1.RawValue  `asn1:"explicit,tag:0"`
	ReqFlags    asn1.BitString `asn1:"explicit,optional,tag:1"`
	MechToken   []byte         `asn1:"explicit,optional,tag:2"`
	MechListMIC []byte         `asn1:"explicit,optional,tag:3"`
}

type negTokenResp struct {
	State         asn1.Enumerated       `asn1:"explicit,optional,tag:0,default:-1"`
	SupportedMech asn1.ObjectIdentifier `asn1:"explicit,optional,tag:1"`
	ResponseToken []byte                `asn1:"explicit,optional,tag:2"`
	MechListMIC   []byte                `asn1:"explicit,optional,tag:3"`
}

// unwrapSPNEGO returns the NTLM message of a token. mechs is the DER of the
// mechanisms that a first token offers, NTLM among them; mic signs them in a later
// one.
func unwrapSPNEGO(token []byte) (message, mechs, mic []byte, err error) {
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(token, &outer)
	switch {
	case err != nil:
		return nil, nil, nil, err
	case len(rest) > 0:
		return nil, nil, nil, errors.New("something follows the SPNEGO token")
	case outer.Class == asn1.ClassApplication && outer.Tag == 0: // InitialContextToken
		var mech asn1.ObjectIdentifier
		inner, err := asn1.Unmarshal(outer.Bytes, &mech)
		if err != nil || !mech.Equal(oidSPNEGO) {
			return nil, nil, nil, fmt.Errorf("mechanism %v, want SPNEGO: %v", mech, err)
		}
		var first negTokenInit
		if _, err := asn1.UnmarshalWithParams(inner, &first, "explicit,tag:0"); err != nil {
			return nil, nil, nil, err
		}
		var offered []asn1.ObjectIdentifier
		if _, err := asn1.Unmarshal(first.MechTypes.Bytes, &offered); err != nil {
			return nil, nil, nil, err
		}
		if len(offered) == 0 || !offered[0].Equal(oidNTLM) {
			return nil, nil, nil, fmt.Errorf("mechanisms %v: only NTLM is spoken, and first", offered)
		}
		return first.MechToken, first.MechTypes.Bytes, nil, nil
	case outer.Class == asn1.ClassContextSpecific && outer.Tag == 1:
		var next negTokenResp
		if _, err := asn1.UnmarshalWithParams(token, &next, "explicit,tag:1"); err != nil {
			return nil, nil, nil, err
		}
		return next.ResponseToken, nil, next.MechListMIC, nil
	}
	return nil, nil, nil, fmt.Errorf("a token of class %d and tag %d is none of SPNEGO", outer.Class, outer.Tag)
}

// wrapSPNEGO writes a NegTokenResp.
func wrapSPNEGO(state asn1.Enumerated, message, mic []byte) []byte {
	field := func(tag int, v any) []byte {
		der, err := asn1.MarshalWithParams(v, fmt.Sprintf("explicit,tag:%d", tag))
		if err != nil {
			panic(err) // the types are fixed
		}
		return der
	}
	fields := [][]byte{field(0, state)}
	if message != nil {
		fields = append(fields, field(1, oidNTLM), field(2, message))
	}
	if mic != nil {
		fields = append(fields, field(3, mic))
	}
	sequence, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(fields, nil)})
	if err != nil {
		panic(err)
	}
	out, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true, Bytes: sequence})
	if err != nil {
		panic(err)
	}
	return out
}
