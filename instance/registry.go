package instance

import (
	"errors"
	"os"

	"vps/cell"
)

// save writes the record. The caller holds i.mu.
func (i *instance) save() error { return i.host.home.Records().Save(i.id, &i.rec, i.cfg) }

// load reads all records. One that cannot be read is an error: what it is of may run.
func (h *Host) load() error {
	ids, err := h.home.Records().IDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		i := newInstance(h, id)
		if err := i.load(); err != nil {
			return err
		}
		h.instances[id] = i
	}
	return nil
}

func (i *instance) load() (err error) {
	i.rec, i.cfg, err = i.host.home.Records().Load(i.id)
	return err
}

// forget removes everything that is kept of an instance. It has no process.
func (i *instance) forget() error {
	path := i.host.home.Records().Path(i.id)
	var errs []error
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		errs = append(errs, err)
	}
	if err := cell.Clean(i.host.home.Instance(i.id)); err != nil {
		errs = append(errs, err) // what is mounted there must not be removed
	} else {
		errs = append(errs, os.RemoveAll(i.host.home.Instance(i.id)))
	}
	if i.rec.OwnRange {
		errs = append(errs, i.host.ids.Release(i.rec.FirstUID, path))
	}
	i.host.drop(i)
	return errors.Join(errs...)
}
