package requestlog

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"lbctl/internal/accesslog"
	"lbctl/internal/instances"
)

// The first byte of an entry says what it is.
const (
	entryRequest = 'r'
	entryEvent   = 'e' // the rest is the line itself
)

// request is what the log knows of a request. Its texts are parts of the entry that it was
// decoded from.
type request struct {
	time          time.Time
	took          time.Duration
	grpc          bool
	tcp           bool // it is a session
	service       []byte
	route         []byte
	method        []byte
	scheme        []byte
	httpVersion   []byte
	host          []byte
	path          []byte
	status        int
	grpcStatus    int // -1: none
	ownError      int // 0: none
	reason        []byte
	complete      bool
	requestBytes  int64
	responseBytes int64
	client        []byte
	id            []byte
	trace         []byte // see accesslog.Record
	tries         []try
}

// try is one attempt to have a request answered by an instance.
type try struct {
	endpoint []byte // empty: there was no instance to try
	id, node []byte // empty: the table does not know the endpoint
	version  []byte
	result   []byte
	status   int
	// -1: that did not happen.
	connect, header, took time.Duration
}

// failed reports whether the request is an error: status 5xx, one of gRPC's server errors, or an
// error of nginx's that its client got as another status.
func (r *request) failed() bool {
	if r.tcp {
		return r.ownError >= 500 // its status is nginx's
	}
	return r.status >= 500 || r.ownError >= 500 || accesslog.ServerError(r.grpcStatus)
}

// The bits of an entry's flags.
const (
	flagGRPC = 1 << iota
	flagComplete
	flagTCP
)

// appendEntry appends a request as an entry. It finds the instances now: later the table may not
// know them any more.
func appendEntry(b []byte, r *accesslog.Record, index *instances.Index) []byte {
	grpc, maintenance := r.GRPCStatus >= 0, false
	if s := index.Service(r.Service); s != nil {
		grpc, maintenance = s.GRPC, s.Maintenance
	}
	flags, status := byte(0), -1
	if grpc {
		flags |= flagGRPC
		status = r.ClientGRPCStatus()
	}
	if r.TCP {
		flags |= flagTCP
	}
	if r.Completed {
		flags |= flagComplete
	}
	b = append(b, entryRequest, flags)
	b = appendNumber(b, r.Time.UnixMilli())
	b = appendMillis(b, r.Took)
	b = appendNumber(b, int64(r.Status))
	b = appendNumber(b, int64(status))
	b = appendNumber(b, int64(r.OwnError))
	b = appendNumber(b, r.RequestBytes)
	b = appendNumber(b, r.ResponseBytes)
	b = appendText(b, r.Service)
	b = appendText(b, r.Route)
	b = appendText(b, r.Method)
	b = appendText(b, r.Scheme)
	b = appendText(b, r.HTTPVersion)
	b = appendText(b, r.Host)
	b = appendText(b, r.Path)
	b = appendText(b, r.Client)
	b = appendText(b, r.RequestID)
	b = appendText(b, r.Trace)
	b = appendText(b, r.OwnReason(maintenance))
	b = binary.AppendUvarint(b, uint64(len(r.Tries)))
	for n := range r.Tries {
		b = appendTry(b, r, n, grpc, index)
	}
	return b
}

func appendTry(b []byte, r *accesslog.Record, n int, grpc bool, index *instances.Index) []byte {
	t := &r.Tries[n]
	result := r.Result(n, grpc)
	if found := index.Find(r.Service, t.Address); found != nil {
		b = appendText(b, found.Endpoint)
		b = appendText(b, found.ID)
		b = appendText(b, found.Node)
		b = appendText(b, found.Version)
	} else {
		address := t.Address
		if result == accesslog.ResultNoInstance || result == accesslog.ResultBusy || bytes.HasPrefix(address, []byte("unix:")) {
			address = nil // it is not that of an instance; on a socket lbctl itself answers
		}
		b = appendText(b, address)
		b = append(b, 0, 0, 0)
	}
	b = appendText(b, result)
	b = appendNumber(b, int64(t.Status))
	b = appendMillis(b, t.Connect)
	b = appendMillis(b, t.Header)
	return appendMillis(b, t.Took)
}

func appendNumber(b []byte, n int64) []byte { return binary.AppendVarint(b, n) }

// appendMillis appends a time in milliseconds, as exact as nginx measures; -1 if it is negative.
func appendMillis(b []byte, d time.Duration) []byte {
	if d < 0 {
		return appendNumber(b, -1)
	}
	return appendNumber(b, d.Milliseconds())
}

func appendText[T string | []byte](b []byte, text T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// decode fills the request from an entry that appendEntry has made.
func (r *request) decode(entry []byte) {
	flags := entry[1]
	d := decoder{entry[2:]}
	*r = request{
		grpc: flags&flagGRPC != 0, tcp: flags&flagTCP != 0, complete: flags&flagComplete != 0,
		time: time.UnixMilli(d.number()), took: d.millis(),
		status: int(d.number()), grpcStatus: int(d.number()), ownError: int(d.number()),
		requestBytes: d.number(), responseBytes: d.number(),
		service: d.text(), route: d.text(), method: d.text(), scheme: d.text(), httpVersion: d.text(), host: d.text(), path: d.text(),
		client: d.text(), id: d.text(), trace: d.text(), reason: d.text(),
		tries: slices.Grow(r.tries[:0], 2),
	}
	for range d.count() {
		r.tries = append(r.tries, try{
			endpoint: d.text(), id: d.text(), node: d.text(), version: d.text(), result: d.text(),
			status: int(d.number()), connect: d.millis(), header: d.millis(), took: d.millis(),
		})
	}
}

// decoder reads the values of an entry.
type decoder struct{ rest []byte }

func (d *decoder) number() int64 {
	n, size := binary.Varint(d.rest)
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) count() uint64 {
	n, size := binary.Uvarint(d.rest)
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) millis() time.Duration {
	if n := d.number(); n >= 0 {
		return time.Duration(n) * time.Millisecond
	}
	return -1
}

func (d *decoder) text() []byte {
	n := d.count()
	text := d.rest[:n]
	d.rest = d.rest[n:]
	return text
}
