package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"lbctl/internal/kv"
)

// KeysNames begins the names of the keys' documents, for kv.Store.List.
const KeysNames = "access/key/"

// KeyName returns the name of the document of the key with a name.
func KeyName(name string) string { return KeysNames + name }

// The kinds of keys.
const (
	APIKey = "key"   // sent as "Authorization: Bearer KEY" or "X-API-Key: KEY"
	Basic  = "basic" // a password, sent with the key's name by basic authentication
)

// keyBegin begins each API key, so that people and programs that look for leaked secrets see
// what it is.
const keyBegin = "lbk_"

// Key is an API key or a password, without its secret.
type Key struct {
	Name string // the instance gets it, in the header X-Lb-User
	Kind string // APIKey or Basic
	// Services has those that it is good for; empty: all.
	Services []string
	Until    time.Time // zero: without end
	By       string    // who created it
	At       time.Time
	Why      string

	hash string // sha256:HEX of an API key; $argon2id$... of a password
}

type storedKey struct {
	Kind     string    `json:"kind"`
	Hash     string    `json:"hash"`
	Services []string  `json:"services,omitempty"`
	Until    time.Time `json:"until,omitzero"`
	By       string    `json:"by"`
	At       time.Time `json:"at"`
	Why      string    `json:"why,omitempty"`
}

var keyNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// CheckKeyName returns an error if a text can't be the name of a key. The name is a header's
// value, and a part of a key in Consul.
func CheckKeyName(name string) error {
	if !keyNamePattern.MatchString(name) {
		return fmt.Errorf(`name %q: want up to 63 letters, digits, "-", "_" and ".", with a letter or digit first`, name)
	}
	return nil
}

// NewSecret returns a secret of 256 random bits. An API key can't be guessed, so its hash
// needs no salt and need not be slow.
func NewSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return keyBegin + base64.RawURLEncoding.EncodeToString(b)
}

// SetSecret stores the hash of the key's secret: SHA-256 of an API key, which has 256 random
// bits; Argon2id of a password, which people choose.
func (k *Key) SetSecret(secret string) {
	if k.Kind == Basic {
		k.hash = hashPassword(secret)
		return
	}
	sum := sha256.Sum256([]byte(secret))
	k.hash = "sha256:" + hex.EncodeToString(sum[:])
}

// Document returns the key's document.
func (k *Key) Document() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(storedKey{
		Kind: k.Kind, Hash: k.hash, Services: k.Services, By: k.By, Why: k.Why,
		Until: k.Until.UTC().Truncate(time.Second), At: k.At.UTC().Truncate(time.Second),
	})
	return b.Bytes(), err
}

// ReadKey reads a key's document, strictly.
func ReadKey(d kv.Document) (*Key, error) {
	var s storedKey
	if err := kv.Decode(d.Value, &s); err != nil {
		return nil, err
	}
	k := &Key{
		Name: strings.TrimPrefix(d.Name, KeysNames), Kind: s.Kind, Services: s.Services,
		Until: s.Until, By: s.By, At: s.At, Why: s.Why, hash: s.Hash,
	}
	errs := []error{CheckKeyName(k.Name)}
	for _, service := range k.Services {
		errs = append(errs, CheckService(service))
	}
	switch k.Kind {
	case APIKey:
		if _, err := k.sum(); err != nil {
			errs = append(errs, err)
		}
	case Basic:
		if _, err := parsePassword(k.hash); err != nil {
			errs = append(errs, err)
		}
	default:
		errs = append(errs, fmt.Errorf("kind %q, want %q or %q", k.Kind, APIKey, Basic))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return k, nil
}

// sum returns the SHA-256 of an API key.
func (k *Key) sum() (sum [sha256.Size]byte, err error) {
	text, ok := strings.CutPrefix(k.hash, "sha256:")
	b, err := hex.DecodeString(text)
	if !ok || err != nil || len(b) != len(sum) {
		return sum, errors.New(`its hash is not "sha256:" and 64 hexadecimal digits`)
	}
	copy(sum[:], b)
	return sum, nil
}

// goodFor reports whether the key is good for a service.
func (k *Key) goodFor(service string) bool {
	return len(k.Services) == 0 || slices.Contains(k.Services, service)
}

func (k *Key) over(now time.Time) bool { return !k.Until.IsZero() && !k.Until.After(now) }
