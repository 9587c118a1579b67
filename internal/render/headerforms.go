package render

import "strings"

// maxSeparators bounds the forms of a name: each separator doubles them.
const maxSeparators = 3

// otherForms returns the other forms of the names of headers, with "_" for "-" and the reverse:
// "A_B" for "A-B". A name with more than 3 of them has only the form with "-" alone, and the form
// with "_" alone.
func otherForms(names ...string) []string {
	var all []string
	for _, name := range names {
		forms := []string{strings.ReplaceAll(name, "_", "-"), strings.ReplaceAll(name, "-", "_")}
		parts := strings.Split(forms[0], "-")
		if len(parts)-1 <= maxSeparators {
			forms = []string{parts[0]}
			for _, part := range parts[1:] {
				var longer []string
				for _, form := range forms {
					longer = append(longer, form+"-"+part, form+"_"+part)
				}
				forms = longer
			}
		}
		for _, form := range forms {
			if form != name {
				all = append(all, form)
			}
		}
	}
	return all
}

// withOtherForms lets no other form of a header pass whose own form doesn't pass: some servers
// take "_" for "-". Values that the policy has for another form stay.
func withOtherForms(all []Header) []Header {
	at := map[string]int{}
	for n, h := range all {
		at[strings.ToLower(h.Name)] = n
	}
	for _, h := range all {
		if h.Keep {
			continue
		}
		for _, form := range otherForms(h.Name) {
			n, ok := at[strings.ToLower(form)]
			if !ok {
				n = len(all)
				at[strings.ToLower(form)] = n
				all = append(all, Header{Name: form})
			}
			all[n].Keep = false
		}
	}
	return all
}
