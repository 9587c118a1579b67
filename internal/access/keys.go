package access

import "crypto/sha256"

// keys are all keys, ready to be checked. They must not be changed.
type keys struct {
	bySum  map[[sha256.Size]byte]*Key // the API keys, by SHA-256
	byName map[string]*Key            // the passwords
}

func newKeys(all []*Key) *keys {
	k := &keys{bySum: map[[sha256.Size]byte]*Key{}, byName: map[string]*Key{}}
	for _, key := range all {
		if key.Kind == Basic {
			k.byName[key.Name] = key
			continue
		}
		if sum, err := key.sum(); err == nil {
			k.bySum[sum] = key
		}
	}
	return k
}

// current returns the keys that count now; known is false if Consul has never answered.
func (k *Keeper) current() (keys *keys, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys, k.known
}
