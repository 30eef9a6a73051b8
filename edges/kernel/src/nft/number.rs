//! The numbers of linux/netfilter/nf_tables.h, nfnetlink.h and libnftnl's user data, under their own
//! names without the prefix that the module says already.

/// Message types, within nfnetlink's subsystem 10.
pub mod msg {
    const SUBSYSTEM: u16 = 10 << 8;
    pub const BATCH_BEGIN: u16 = 0x10;
    pub const BATCH_END: u16 = 0x11;
    pub const NEWTABLE: u16 = SUBSYSTEM;
    pub const GETTABLE: u16 = SUBSYSTEM | 1;
    pub const DELTABLE: u16 = SUBSYSTEM | 2;
    pub const NEWCHAIN: u16 = SUBSYSTEM | 3;
    pub const GETCHAIN: u16 = SUBSYSTEM | 4;
    pub const DELCHAIN: u16 = SUBSYSTEM | 5;
    pub const NEWRULE: u16 = SUBSYSTEM | 6;
    pub const GETRULE: u16 = SUBSYSTEM | 7;
    pub const DELRULE: u16 = SUBSYSTEM | 8;
    pub const NEWSET: u16 = SUBSYSTEM | 9;
    pub const GETSET: u16 = SUBSYSTEM | 10;
    pub const DELSET: u16 = SUBSYSTEM | 11;
    pub const NEWSETELEM: u16 = SUBSYSTEM | 12;
    pub const GETSETELEM: u16 = SUBSYSTEM | 13;
    pub const DELSETELEM: u16 = SUBSYSTEM | 14;
    pub const NEWOBJ: u16 = SUBSYSTEM | 18;
    pub const GETOBJ: u16 = SUBSYSTEM | 19;
    pub const DELOBJ: u16 = SUBSYSTEM | 20;
    pub const GETGEN: u16 = SUBSYSTEM | 16;
}

/// NFNL_BATCH_GENID.
pub const BATCH_GENID: u16 = 1;
/// NFTA_GEN_ID.
pub const GEN_ID: u16 = 1;
/// NFTA_LIST_ELEM.
pub const LIST_ELEM: u16 = 1;

pub mod table {
    pub const NAME: u16 = 1;
    pub const FLAGS: u16 = 2;
}

pub mod chain {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 3;
    pub const HOOK: u16 = 4;
    pub const POLICY: u16 = 5;
    pub const TYPE: u16 = 7;
    pub const HOOK_HOOKNUM: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
}

pub mod rule {
    pub const TABLE: u16 = 1;
    pub const CHAIN: u16 = 2;
    pub const HANDLE: u16 = 3;
    pub const EXPRESSIONS: u16 = 4;
    pub const USERDATA: u16 = 7;
    pub const EXPR_NAME: u16 = 1;
    pub const EXPR_DATA: u16 = 2;
}

pub mod set {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const KEY_TYPE: u16 = 4;
    pub const KEY_LEN: u16 = 5;
    pub const DATA_TYPE: u16 = 6;
    pub const DATA_LEN: u16 = 7;
    pub const DESC: u16 = 9;
    pub const ID: u16 = 10;
    pub const TIMEOUT_ATTRIBUTE: u16 = 11;
    pub const USERDATA: u16 = 13;
    pub const COUNT: u16 = 20;
    pub const DESC_SIZE: u16 = 1;
    pub const DESC_CONCAT: u16 = 2;
    pub const FIELD_LEN: u16 = 1;
    pub const ANONYMOUS: u32 = 1;
    pub const CONSTANT: u32 = 2;
    pub const INTERVAL: u32 = 4;
    pub const MAP: u32 = 8;
    pub const TIMEOUT: u32 = 0x10;
    pub const EVAL: u32 = 0x20;
    pub const OBJECT: u32 = 0x40;
    pub const CONCAT: u32 = 0x80;
    /// NFT_DATA_VERDICT, the data type of a verdict map.
    pub const VERDICT: u32 = 0xffff_ff00;
}

/// Named objects.
pub mod object {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const TYPE: u16 = 3;
    pub const DATA: u16 = 4;
    pub const COUNTER: u32 = 1;
    pub const QUOTA: u32 = 2;
    pub const CT_HELPER: u32 = 3;
    pub const LIMIT: u32 = 4;
    pub const CT_TIMEOUT: u32 = 7;
    pub const CT_EXPECT: u32 = 9;
    pub const SYNPROXY: u32 = 10;
}

pub mod elem {
    pub const LIST_TABLE: u16 = 1;
    pub const LIST_SET: u16 = 2;
    pub const LIST_ELEMENTS: u16 = 3;
    pub const LIST_SET_ID: u16 = 4;
    pub const KEY: u16 = 1;
    pub const DATA: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const EXPIRATION: u16 = 5;
    pub const USERDATA: u16 = 6;
    pub const KEY_END: u16 = 10;
    pub const INTERVAL_END: u32 = 1;
    pub const CATCHALL: u32 = 2;
}

pub mod data {
    pub const VALUE: u16 = 1;
    pub const VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;
    pub const DROP: i32 = 0;
    pub const ACCEPT: i32 = 1;
    pub const CONTINUE: i32 = -1;
    pub const JUMP: i32 = -3;
    pub const GOTO: i32 = -4;
    pub const RETURN: i32 = -5;
}

/// Attributes of expressions, by expression.
pub mod expr {
    pub const PAYLOAD_DREG: u16 = 1;
    pub const PAYLOAD_BASE: u16 = 2;
    pub const PAYLOAD_OFFSET: u16 = 3;
    pub const PAYLOAD_LEN: u16 = 4;
    pub const NETWORK_HEADER: u32 = 1;
    pub const TRANSPORT_HEADER: u32 = 2;

    pub const CMP_SREG: u16 = 1;
    pub const CMP_OP: u16 = 2;
    pub const CMP_DATA: u16 = 3;
    pub const EQ: u32 = 0;
    pub const NEQ: u32 = 1;
    pub const LTE: u32 = 3;
    pub const GTE: u32 = 5;

    pub const RANGE_SREG: u16 = 1;
    pub const RANGE_OP: u16 = 2;
    pub const RANGE_FROM: u16 = 3;
    pub const RANGE_TO: u16 = 4;

    pub const BITWISE_SREG: u16 = 1;
    pub const BITWISE_DREG: u16 = 2;
    pub const BITWISE_LEN: u16 = 3;
    pub const BITWISE_MASK: u16 = 4;
    pub const BITWISE_XOR: u16 = 5;
    pub const BITWISE_OP: u16 = 6;

    pub const IMMEDIATE_DREG: u16 = 1;
    pub const IMMEDIATE_DATA: u16 = 2;

    pub const LOOKUP_SET: u16 = 1;
    pub const LOOKUP_SREG: u16 = 2;
    pub const LOOKUP_DREG: u16 = 3;
    pub const LOOKUP_SET_ID: u16 = 4;
    pub const LOOKUP_FLAGS: u16 = 5;
    pub const LOOKUP_INVERT: u32 = 1;

    pub const META_DREG: u16 = 1;
    pub const META_KEY: u16 = 2;
    pub const META_SREG: u16 = 3;
    pub const META_PRIORITY: u32 = 2;
    pub const META_MARK: u32 = 3;
    pub const META_IIFNAME: u32 = 6;
    pub const META_OIFNAME: u32 = 7;
    pub const META_NFPROTO: u32 = 15;
    pub const META_L4PROTO: u32 = 16;

    pub const CT_DREG: u16 = 1;
    pub const CT_KEY: u16 = 2;
    pub const CT_DIRECTION_ATTRIBUTE: u16 = 3;
    pub const CT_SREG: u16 = 4;
    pub const CT_STATE: u32 = 0;
    pub const CT_DIRECTION: u32 = 1;
    pub const CT_STATUS: u32 = 2;
    pub const CT_MARK: u32 = 3;
    pub const CT_PROTO_DST: u32 = 12;
    pub const CT_DST_IP: u32 = 20;
    pub const CT_DST_IP6: u32 = 22;
    /// IP_CT_DIR_ORIGINAL.
    pub const ORIGINAL: u32 = 0;

    pub const FIB_DREG: u16 = 1;
    pub const FIB_RESULT: u16 = 2;
    pub const FIB_FLAGS: u16 = 3;
    pub const FIB_ADDRTYPE: u32 = 3;
    pub const FIB_SADDR: u32 = 1;
    pub const FIB_DADDR: u32 = 2;

    pub const NG_DREG: u16 = 1;
    pub const NG_MODULUS: u16 = 2;
    pub const NG_TYPE: u16 = 3;
    pub const NG_OFFSET: u16 = 4;
    pub const NG_RANDOM: u32 = 1;

    pub const NAT_TYPE: u16 = 1;
    pub const NAT_FAMILY: u16 = 2;
    pub const NAT_REG_ADDR_MIN: u16 = 3;
    pub const NAT_REG_ADDR_MAX: u16 = 4;
    pub const NAT_REG_PROTO_MIN: u16 = 5;
    pub const NAT_REG_PROTO_MAX: u16 = 6;
    pub const NAT_FLAGS: u16 = 7;
    pub const NAT_SNAT: u32 = 0;
    pub const NAT_DNAT: u32 = 1;
    /// NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED, which the registers say already.
    pub const NAT_IMPLIED_FLAGS: u32 = 0b11;

    pub const REDIR_REG_PROTO_MIN: u16 = 1;
    pub const REDIR_REG_PROTO_MAX: u16 = 2;
    pub const REDIR_FLAGS: u16 = 3;

    pub const MASQ_FLAGS: u16 = 1;
    pub const MASQ_REG_PROTO_MIN: u16 = 2;
    /// NF_NAT_RANGE_PROTO_RANDOM_FULLY, of `nat` and `masq`.
    pub const FULLY_RANDOM: u32 = 0x10;

    pub const OBJREF_TYPE: u16 = 1;
    pub const OBJREF_NAME: u16 = 2;

    pub const LIMIT_RATE: u16 = 1;
    pub const LIMIT_UNIT: u16 = 2;
    pub const LIMIT_BURST: u16 = 3;
    pub const LIMIT_TYPE: u16 = 4;
    pub const LIMIT_FLAGS: u16 = 5;
    pub const LIMIT_BYTES: u32 = 1;
    pub const LIMIT_OVER: u32 = 1;

    pub const LOG_GROUP: u16 = 1;
    pub const LOG_PREFIX: u16 = 2;
    pub const LOG_SNAPLEN: u16 = 3;
    pub const LOG_QTHRESHOLD: u16 = 4;
    pub const LOG_LEVEL: u16 = 5;
    pub const LOG_FLAGS: u16 = 6;
    /// LOG_WARNING, what the kernel's log is told with where nobody says.
    pub const LOG_WARNING: u32 = 4;

    pub const DYNSET_SET_NAME: u16 = 1;
    pub const DYNSET_OP: u16 = 3;
    pub const DYNSET_SREG_KEY: u16 = 4;
    pub const DYNSET_SREG_DATA: u16 = 5;
    pub const DYNSET_TIMEOUT: u16 = 6;
    pub const DYNSET_EXPR: u16 = 7;
    pub const DYNSET_FLAGS: u16 = 9;
    pub const DYNSET_EXPRESSIONS: u16 = 10;
    pub const DYNSET_UPDATE: u32 = 1;

    pub const REJECT_TYPE: u16 = 1;
    pub const REJECT_CODE: u16 = 2;
    pub const REJECT_ICMP: u32 = 0;
    pub const REJECT_TCP_RST: u32 = 1;
    pub const REJECT_ICMPX: u32 = 2;
}

/// NFPROTO_*.
pub mod family {
    pub const UNSPEC: u8 = 0;
    pub const INET: u8 = 1;
    pub const IPV4: u8 = 2;
    pub const IPV6: u8 = 10;
}

/// libnftnl's and nft's user data: one byte type, one byte length.
pub mod udata {
    /// Of a rule and of an element.
    pub const COMMENT: u8 = 0;
    pub const SET_KEY_BYTEORDER: u8 = 0;
    pub const SET_DATA_BYTEORDER: u8 = 1;
    pub const SET_KEY_TYPEOF: u8 = 3;
    pub const SET_DATA_TYPEOF: u8 = 4;
    pub const TYPEOF_EXPR: u8 = 0;
    pub const TYPEOF_DATA: u8 = 1;
    /// Kinds of nft's own expressions (enum expr_types).
    pub const VERDICT: u32 = 1;
    pub const PAYLOAD: u32 = 7;
    pub const META: u32 = 9;
    pub const CT: u32 = 12;
    pub const CONCAT: u32 = 13;
    pub const NUMGEN: u32 = 23;
    pub const FIB: u32 = 26;
    /// enum proto_desc_id.
    pub const PROTO_ICMP: u32 = 4;
    pub const PROTO_UDP: u32 = 6;
    pub const PROTO_TH: u32 = 11;
    pub const PROTO_IP: u32 = 12;
    pub const PROTO_IP6: u32 = 13;
    pub const PROTO_ICMPV6: u32 = 14;
}
