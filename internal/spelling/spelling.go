// Package spelling finds the known word that is nearest to a mistyped one.
package spelling

import "strings"

// Nearest returns the known word that is most similar to the given one, "" if none is similar.
// Upper and lower case are equal, and so are "-", "_" and ".". Two words are similar if at most
// two letters differ, or a third of the longer word's, or if one begins with the other and is
// less than twice as long. Two swapped neighbours are one difference. Of several equally similar
// words, it returns the first.
func Nearest(given string, known []string) string {
	nearest, least := "", 0
	for _, word := range known {
		a, b := normal(given), normal(word)
		differ := distance(a, b)
		if startsLike(a, b) {
			differ = min(differ, 1)
		}
		alike := differ <= max(2, max(len(a), len(b))/3) && differ < min(len(a), len(b))
		if alike && (nearest == "" || differ < least) {
			nearest, least = word, differ
		}
	}
	return nearest
}

var separators = strings.NewReplacer("_", "-", ".", "-")

func normal(word string) string { return separators.Replace(strings.ToLower(word)) }

func startsLike(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	return strings.HasPrefix(b, a) && 2*len(a) > len(b)
}

// distance returns how many letters have to be inserted, left out, replaced or swapped
// with their neighbour to make b of a.
func distance(a, b string) int {
	const most = 256 // names from Consul may be long, and the time grows with their product
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replaced := last[j]
			if a[i] != b[j] {
				replaced++
			}
			row[j+1] = min(replaced, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
