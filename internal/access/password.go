package access

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The parameters of Argon2id: OWASP's minimum. One check takes some 20 ms and 19 MiB.
const (
	argonTime    = 2
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
	saltSize     = 16
	hashSize     = 32
)

// password is a hashed password.
type password struct {
	time, memory uint32
	threads      uint8
	salt, hash   []byte
}

// hashPassword returns the password's hash in the usual form: $argon2id$v=19$m=...,t=...,p=...$SALT$HASH.
func hashPassword(text string) string {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	hash := argon2.IDKey([]byte(text), salt, argonTime, argonMemory, argonThreads, hashSize)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(hash))
}

// parsePassword reads a hash. Its bounds keep a hash that somebody wrote by hand from taking
// all memory or time.
func parsePassword(text string) (password, error) {
	bad := errors.New(`its hash is not one of Argon2id like "$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH", with at most 64 MiB and 10 passes`)
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return password{}, bad
	}
	var p password
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.threads); err != nil {
		return password{}, bad
	}
	var err1, err2 error
	p.salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	p.hash, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(p.salt) < 8 || len(p.hash) < 16 || len(p.hash) > 64 ||
		p.memory < 8 || p.memory > 64<<10 || p.time < 1 || p.time > 10 || p.threads < 1 || p.threads > 4 {
		return password{}, bad
	}
	return p, nil
}

func (p password) matches(text string) bool {
	hash := argon2.IDKey([]byte(text), p.salt, p.time, p.memory, p.threads, uint32(len(p.hash)))
	return subtle.ConstantTimeCompare(hash, p.hash) == 1
}
