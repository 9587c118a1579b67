package printable

// maxShort is the maximum length of what Shorten returns, in bytes.
const maxShort = 80

// Shorten shortens a value for a message, to 80 bytes. Values from Consul may be much longer.
func Shorten(value string) string {
	if len(value) <= maxShort {
		return value
	}
	return value[:maxShort-3] + "..."
}
