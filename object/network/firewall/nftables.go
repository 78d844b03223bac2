package firewall

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vps/dump"
	"vps/linux"
	"vps/object/network/netlink"
)

// nftKind is a kind of object of nf_tables, by the message that makes one.
type nftKind struct {
	name string
	keep []uint16 // the attributes that can be set
}

func (k nftKind) keeps(attribute uint16) bool { return slices.Contains(k.keep, attribute) }

var kinds = map[uint32]nftKind{
	unix.NFT_MSG_NEWTABLE: {"table", []uint16{unix.NFTA_TABLE_NAME, unix.NFTA_TABLE_FLAGS, linux.NFTA_TABLE_USERDATA}},
	unix.NFT_MSG_NEWCHAIN: {"chain", []uint16{unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY,
		unix.NFTA_CHAIN_TYPE, unix.NFTA_CHAIN_COUNTERS, linux.NFTA_CHAIN_FLAGS, linux.NFTA_CHAIN_USERDATA}},
	unix.NFT_MSG_NEWOBJ: {"object", []uint16{unix.NFTA_OBJ_TABLE, unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE, unix.NFTA_OBJ_DATA, linux.NFTA_OBJ_USERDATA}},
	unix.NFT_MSG_NEWFLOWTABLE: {"flow table", []uint16{linux.NFTA_FLOWTABLE_TABLE, linux.NFTA_FLOWTABLE_NAME, linux.NFTA_FLOWTABLE_HOOK,
		linux.NFTA_FLOWTABLE_FLAGS}},
	unix.NFT_MSG_NEWSET: {"set", []uint16{unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN,
		unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_POLICY, unix.NFTA_SET_DESC, unix.NFTA_SET_ID, unix.NFTA_SET_TIMEOUT,
		unix.NFTA_SET_GC_INTERVAL, unix.NFTA_SET_USERDATA, unix.NFTA_SET_OBJ_TYPE, linux.NFTA_SET_EXPR, linux.NFTA_SET_EXPRESSIONS}},
	unix.NFT_MSG_NEWSETELEM: {"elements", []uint16{unix.NFTA_SET_ELEM_LIST_TABLE, unix.NFTA_SET_ELEM_LIST_SET, unix.NFTA_SET_ELEM_LIST_ELEMENTS}},
	unix.NFT_MSG_NEWRULE: {"rule", []uint16{unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_EXPRESSIONS, unix.NFTA_RULE_COMPAT,
		unix.NFTA_RULE_USERDATA}},
}

func nftType(kind uint32) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | uint16(kind) }

// readTables lists what is in nf_tables, in the order in which it can be entered: rules refer to everything else, elements of sets to
// chains and objects. Sets that cannot change once a rule refers to them are full by then.
func readTables(c *netlink.Conn) ([]*dump.NetfilterMessage, error) {
	var all []*dump.NetfilterMessage
	bound := make(map[string]bool) // chains that belong to a rule
	for _, ask := range []struct{ get, make uint32 }{
		{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_NEWTABLE}, {unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN}, {unix.NFT_MSG_GETOBJ, unix.NFT_MSG_NEWOBJ},
		{unix.NFT_MSG_GETFLOWTABLE, unix.NFT_MSG_NEWFLOWTABLE}, {unix.NFT_MSG_GETSET, unix.NFT_MSG_NEWSET}, {unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE},
	} {
		var found []*dump.NetfilterMessage
		ids := uint32(0)
		err := list(c, nftType(ask.get), genmsg(unix.AF_UNSPEC), func(family uint8, attributes []byte) error {
			m := &dump.NetfilterMessage{Type: ask.make, Family: uint32(family), Attributes: netlink.Filter(attributes, kinds[ask.make].keeps)}
			switch ask.make {
			case unix.NFT_MSG_NEWTABLE:
				if flags(attributes, unix.NFTA_TABLE_FLAGS)&linux.NFT_TABLE_F_OWNER != 0 {
					return refusal("nf_tables table %s that belongs to a process", text(attributes, unix.NFTA_TABLE_NAME))
				}
			case unix.NFT_MSG_NEWCHAIN:
				if flags(attributes, linux.NFTA_CHAIN_FLAGS)&linux.NFT_CHAIN_BINDING != 0 {
					bound[chainName(family, attributes, unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME)] = true
				}
			case unix.NFT_MSG_NEWSET: // one needs a number in its transaction
				ids++
				b := netlink.Builder(m.Attributes)
				b.Bytes(unix.NFTA_SET_ID, binary.BigEndian.AppendUint32(nil, ids))
				m.Attributes = b
			}
			found = append(found, m)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list what is in nf_tables (%s): %w", kinds[ask.make].name, err)
		}
		if ask.make == unix.NFT_MSG_NEWRULE { // such a chain cannot change once its rule is there
			inner := func(m *dump.NetfilterMessage) int {
				if bound[chainName(uint8(m.Family), m.Attributes, unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN)] {
					return 0
				}
				return 1
			}
			slices.SortStableFunc(found, func(a, b *dump.NetfilterMessage) int { return cmp.Compare(inner(a), inner(b)) })
		}
		all = append(all, found...)
		if ask.make == unix.NFT_MSG_NEWSET {
			for _, set := range found {
				elements, err := readElements(c, set)
				if err != nil {
					return nil, err
				}
				all = append(all, elements...)
			}
		}
	}
	return all, nil
}

// readElements lists the elements of a set.
func readElements(c *netlink.Conn, set *dump.NetfilterMessage) ([]*dump.NetfilterMessage, error) {
	var found []*dump.NetfilterMessage
	request := netlink.Builder(genmsg(set.Family))
	request.Bytes(unix.NFTA_SET_ELEM_LIST_TABLE, netlink.Find(set.Attributes, unix.NFTA_SET_TABLE))
	request.Bytes(unix.NFTA_SET_ELEM_LIST_SET, netlink.Find(set.Attributes, unix.NFTA_SET_NAME))
	err := list(c, nftType(unix.NFT_MSG_GETSETELEM), request, func(family uint8, attributes []byte) error {
		if len(netlink.Find(attributes, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) > 0 {
			found = append(found, &dump.NetfilterMessage{
				Type: unix.NFT_MSG_NEWSETELEM, Family: uint32(family), Attributes: netlink.Filter(attributes, kinds[unix.NFT_MSG_NEWSETELEM].keeps),
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the elements of set %s: %w", text(set.Attributes, unix.NFTA_SET_NAME), err)
	}
	return found, nil
}

func chainName(family uint8, attributes []byte, table, chain uint16) string {
	return fmt.Sprintf("%d %s %s", family, text(attributes, table), text(attributes, chain))
}

func text(attributes []byte, kind uint16) string {
	return unix.ByteSliceToString(netlink.Find(attributes, kind))
}

// flags reads a number in network order.
func flags(attributes []byte, kind uint16) uint32 {
	if v := netlink.Find(attributes, kind); len(v) == 4 {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}
