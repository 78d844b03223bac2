package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"vps/cell"
	"vps/config"
)

// schema is the version of a record.
const schema = 1

// record is what is kept of an instance on disk, one file each.
type record struct {
	Schema    int         `json:"schema"`
	ID        string      `json:"id"`
	State     State       `json:"state"`
	Before    State       `json:"before,omitempty"` // what it goes back to if what is under way fails
	Config    string      `json:"config"`
	FirstUID  int         `json:"first_uid"`
	OwnRange  bool        `json:"own_range"` // FirstUID was given by the machine's id file
	Mounted   bool        `json:"mounted"`   // ROOT_MOUNT has run
	Cell      *cell.State `json:"cell,omitempty"`
	Mounts    []string    `json:"mounts,omitempty"` // mount points at birth
	UUID      uuid        `json:"uuid,omitzero"`
	BootID    uuid        `json:"boot_id,omitzero"`
	Created   time.Time   `json:"created,omitzero"`
	Started   time.Time   `json:"started,omitzero"`
	Starts    int         `json:"starts"`
	Age       age         `json:"age"`
	Restores  int         `json:"restores"`
	Restarts  int         `json:"restarts"`
	Exit      *ExitStatus `json:"exit,omitempty"`
	Suspended time.Time   `json:"suspended,omitzero"`
	Saved     *saved      `json:"saved,omitempty"`

	Fill *cell.FillState `json:"fill,omitempty"` // memory is missing yet
	Lost string          `json:"lost,omitempty"` // memory that could not be read, since the last restore
}

func (h *Host) recordPath(id string) string { return filepath.Join(h.dirs.state, id+".json") }

// ConfigPath is where the configuration file of an instance lies.
func (h *Host) ConfigPath(id string) string { return filepath.Join(h.dirs.etc, config.FileName(id)) }

func (h *Host) runDir(id string) string { return filepath.Join(h.dirs.run, id) }

// save writes the record, as a whole or not at all. The caller holds i.mu.
func (i *instance) save() error {
	i.rec.Schema, i.rec.ID = schema, i.id
	i.rec.Config = i.cfg.Text()
	data, err := json.MarshalIndent(i.rec, "", "\t")
	if err != nil {
		return fmt.Errorf("record of %s: %w", i.id, err)
	}
	path := i.host.recordPath(i.id)
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// load reads all records. One that cannot be read is an error: what it is of may run.
func (h *Host) load() error {
	entries, err := os.ReadDir(h.dirs.state)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || config.ValidName(id) != nil {
			continue
		}
		i := newInstance(h, id)
		if err := i.load(); err != nil {
			return fmt.Errorf("%s: %w", h.recordPath(id), err)
		}
		h.instances[id] = i
	}
	return nil
}

func (i *instance) load() error {
	path := i.host.recordPath(i.id)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &i.rec); err != nil {
		return err
	}
	if i.rec.Schema != schema {
		return fmt.Errorf("schema %d is not %d", i.rec.Schema, schema)
	}
	i.cfg, err = config.Parse(path, strings.NewReader(i.rec.Config))
	return err
}

// forget removes everything that is kept of an instance. It has no process.
func (i *instance) forget() error {
	path := i.host.recordPath(i.id)
	var errs []error
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		errs = append(errs, err)
	}
	if err := cell.Clean(i.host.runDir(i.id)); err != nil {
		errs = append(errs, err) // what is mounted there must not be removed
	} else {
		errs = append(errs, os.RemoveAll(i.host.runDir(i.id)))
	}
	if i.rec.OwnRange {
		errs = append(errs, i.host.ids.Release(i.rec.FirstUID, path))
	}
	i.host.drop(i)
	return errors.Join(errs...)
}
