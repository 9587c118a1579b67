package render

// Hash returns nginx's variable by which the upstream chooses an instance; "" if it doesn't hash.
func (u Upstream) Hash() string { return u.Policy.Balance.HashKey() }

// maxRing is the maximum sum of weights for consistent hashing, unless there are more servers.
// nginx makes 160 points for each unit, in each worker, whenever a server changes: it takes 73 ms
// for a sum of 1,000, and 5 s for one of 100,000.
const maxRing = 1000

// ringWeights changes the weights of servers for consistent hashing. It keeps the weights where it
// can, because another weight moves clients: equal ones are 1, and others are halved as often as
// needed.
func ringWeights(servers []Server) {
	sum, equal := 0, true
	for _, s := range servers {
		sum += s.Weight
		equal = equal && s.Weight == servers[0].Weight
	}
	shift := 0
	for sum>>shift > maxRing {
		shift++
	}
	for n := range servers {
		if equal {
			servers[n].Weight = 1
		} else {
			servers[n].Weight = max(1, servers[n].Weight>>shift)
		}
	}
}
