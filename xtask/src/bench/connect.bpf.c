// A prototype: Services chosen when a socket connects, so that no packet of the connection is translated.
//
//   connect(10.64.0.80:80) ─▶ services: first endpoint, and how many ─▶ endpoints: one at random ─▶ connect(10.128.0.201:8080)
//
// What is not a Service is left alone. The maps hold what the plan gives `services` and `endpoints_N` of the nftables form.

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct frontend {
	__be32 address;
	__be16 port;
	__u16 protocol;
};

struct service {
	__u32 first;
	__u32 count;
};

struct endpoint {
	__be32 address;
	__be16 port;
	__u16 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct frontend);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

SEC("cgroup/connect4")
int connect(struct bpf_sock_addr *to)
{
	struct frontend frontend = {
		.address = to->user_ip4,
		.port = to->user_port,
		.protocol = to->protocol,
	};
	struct service *service = bpf_map_lookup_elem(&services, &frontend);
	if (!service || !service->count)
		return 1;
	__u32 chosen = service->first + bpf_get_prandom_u32() % service->count;
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &chosen);
	if (!endpoint)
		return 1;
	to->user_ip4 = endpoint->address;
	to->user_port = endpoint->port;
	return 1;
}

char _license[] SEC("license") = "Apache-2.0";
