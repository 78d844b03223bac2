package main

// floorContenders measure what no dump and no restore by a command line can be cheaper than: a client that makes
// one call of the daemon, of which a dump and a restore take two, and the namespaces of an instance, made and ended.
func floorContenders(l *lab) (list []contender, err error) {
	command := func(who, step string, argv ...string) contender {
		return contender{name: who, round: func() (sample, error) {
			took, err := l.run(argv...)
			return sample{"floor: " + step + ", ms": milliseconds(took)}, err
		}}
	}
	if l.vpsctl != "" {
		if _, err := l.run(l.vpsctl, "list"); err != nil { // the daemon is there now
			return nil, err
		}
		list = append(list, command(us, "a client and one call", l.vpsctl, "list"))
	}
	return append(list, command("unshare", "eight namespaces, made and ended", "unshare", "--map-root-user", "--user", "--pid",
		"--mount", "--net", "--uts", "--ipc", "--cgroup", "--time", "--fork", "true")), nil
}
