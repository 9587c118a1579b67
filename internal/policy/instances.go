package policy

// Delivery is how changes of a service's instances reach nginx.
type Delivery string

// The kinds of Delivery.
const (
	DeliveryAuto   Delivery = "auto"   // nginx asks lbctl by DNS if it can
	DeliveryReload Delivery = "reload" // lbctl writes them into nginx's files and reloads nginx
)

var everyFamily = families(GRPC, HTTP, TCP)

// instanceFields are about the instances of a service.
var instanceFields = []Field{
	field("check", func(p *Policy) *Check { return &p.Check },
		texts[Check](`"tcp", "http:/path", "grpc", "grpc:package.Service" or "none"`, func(text string) bool { return text != "" && Check(text).Valid() }),
		"http:/healthz",
		"How lbctl probes each instance. tcp connects. http:/PATH gets the path and expects a status of 200 to 399. "+
			"grpc and grpc:NAME ask gRPC's health service, about the whole server or about the service of that name, and expect SERVING. none turns probes off.",
		everyFamily, defaults(string(CheckTCP)), begins(string(CheckTCP), "http:/", string(CheckGRPC), "grpc:", string(CheckNone))),
	field("min-instances", func(p *Policy) *int { return &p.MinInstances }, wholes(1, 10000), "2",
		"How many instances stay in rotation when the service's instances vanish from Consul without maintenance first. The default is --min-instances of lbctl run.",
		everyFamily, unit("instances")),
	field("endpoints", func(p *Policy) *Delivery { return &p.Endpoints }, oneOf(DeliveryAuto, DeliveryReload), string(DeliveryReload),
		"How changes of the service's instances reach nginx. With auto, nginx asks lbctl for them by DNS if it can. With reload, lbctl writes them into nginx's files and reloads nginx.",
		everyFamily, defaults(string(DeliveryAuto))),
}
