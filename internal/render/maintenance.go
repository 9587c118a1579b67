package render

import (
	"strings"
)

// pagesDir is the directory in a generation with the pages of maintenance.body.
const pagesDir = "pages"

// MaintenanceText returns what answers in maintenance say.
func (l Location) MaintenanceText() string {
	if text := l.Policy.Maintenance.Message; text != "" {
		return text
	}
	return l.Service + " is in maintenance"
}

// MaintenanceMessage is MaintenanceText as a grpc-message: "%" begins an escape in it.
func (l Location) MaintenanceMessage() string {
	return "lbctl: " + strings.ReplaceAll(l.MaintenanceText(), "%", "%25")
}

// MaintenancePage returns the name of the file in the pages of the generation, "" without one.
func (l Location) MaintenancePage() string {
	body := l.Policy.Maintenance.Body
	if body == "" {
		return ""
	}
	return hash(map[string][]byte{"": []byte(body)})[:16] + ".html"
}

// pages returns the files of the pages that locations show.
func (f Frontend) pages() map[string][]byte {
	all := map[string][]byte{}
	f.each(func(l Location) {
		if name := l.MaintenancePage(); name != "" && l.Policy.Maintenance.Enabled == "on" {
			all[pagesDir+"/"+name] = []byte(l.Policy.Maintenance.Body)
		}
	})
	return all
}

// Pages reports whether a location of the listener shows a page.
func (f Frontend) Pages() bool { return len(f.pages()) > 0 }
