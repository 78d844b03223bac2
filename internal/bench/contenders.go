package main

func startContenders(l *lab) ([]contender, error) { return l.gather(l.ownStart, oci.startContender) }
func runContenders(l *lab) ([]contender, error)   { return l.gather(l.ownRun, oci.runContender) }
func execContenders(l *lab) ([]contender, error)  { return l.gather(l.ownExec, oci.execContender) }
func idleContenders(l *lab) ([]contender, error)  { return l.gather(l.ownIdle, nil) }
func tinyContenders(l *lab) ([]contender, error) {
	return l.besideCRIU(l.ownTiny, oci.tinyContender, "tiny")
}

func gapContenders(l *lab) ([]contender, error) { return l.besideCRIU(l.ownGap, nil, gapWork) }

// loadContenders makes the contenders for the dump and restore of a load.
func loadContenders(name string) func(*lab) ([]contender, error) {
	return func(l *lab) ([]contender, error) {
		return l.besideCRIU(func() (contender, error) { return l.ownLoad(loadOf(name)) }, nil, name)
	}
}

// redisContenders makes the contenders for the dump and restore of a Redis.
func redisContenders(work string) func(*lab) ([]contender, error) {
	return func(l *lab) ([]contender, error) {
		return l.besideCRIU(func() (contender, error) { return l.ownRedis(work) },
			func(o oci) (contender, error) { return o.redisContender(work) }, work)
	}
}

// gather makes the contenders for a piece of work that OCI runtimes do as well. With an error it returns those
// made so far, which the caller closes in either case.
func (l *lab) gather(own func() (contender, error), rival func(oci) (contender, error)) (list []contender, err error) {
	if l.vpsctl != "" {
		c, err := own()
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if rival == nil {
		return list, nil
	}
	for _, o := range l.runtimes() {
		c, err := rival(o)
		if err != nil {
			return list, err
		}
		list = append(list, c)
	}
	return list, nil
}

// besideCRIU makes the contenders for a dump and restore: CRIU with the bare process, and with a container of it.
func (l *lab) besideCRIU(own func() (contender, error), container func(oci) (contender, error), work string) ([]contender, error) {
	list, err := l.gather(own, nil)
	if err != nil || l.criu == "" {
		return list, err
	}
	c, err := l.criuContender(work)
	if err != nil {
		return list, err
	}
	list = append(list, c)
	if o, ok := l.checkpoints(); ok && container != nil {
		if c, err = container(o); err != nil {
			return list, err
		}
		list = append(list, c)
	}
	return list, nil
}
