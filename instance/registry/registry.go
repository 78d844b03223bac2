// Package registry keeps on disk what is known of the instances of a host, one file each, for the daemon that comes next.
package registry

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"vps/cell"
	"vps/config"
	"vps/ifvps"
)

// schema is the version of a record.
const schema = 1

// Record is what is kept of an instance.
type Record struct {
	Schema    int         `json:"schema"`
	ID        string      `json:"id"`
	State     State       `json:"state"`
	Before    State       `json:"before,omitempty"` // what it goes back to if what is under way fails
	Config    string      `json:"config"`
	FirstUID  int         `json:"first_uid"`
	OwnRange  bool        `json:"own_range"`           // FirstUID was given by the machine's id file
	Mounted   bool        `json:"mounted"`             // ROOT_MOUNT has run
	Announced bool        `json:"announced,omitempty"` // its addresses
	Parked    bool        `json:"parked,omitempty"`    // its addresses are kept for it while it is dead
	Cell      *cell.State `json:"cell,omitempty"`
	Mounts    []string    `json:"mounts,omitempty"` // mount points at birth
	UUID      UUID        `json:"uuid,omitzero"`    // its own since it was created
	BootID    UUID        `json:"boot_id,omitzero"` // of its present or last run
	Created   time.Time   `json:"created,omitzero"`
	Started   time.Time   `json:"started,omitzero"`
	Starts    int         `json:"starts"`
	Age       Age         `json:"age"`
	Restores  int         `json:"restores"`
	Restarts  int         `json:"restarts"` // by policy, in a row
	Exit      *ExitStatus `json:"exit,omitempty"`
	Suspended time.Time   `json:"suspended,omitzero"`
	Saved     *Saved      `json:"saved,omitempty"`

	Impatient map[string]string `json:"impatient,omitempty"` // settings of its network that are others as long as it is suspended

	Moved []ifvps.Moved `json:"moved,omitempty"` // interfaces of the host's that it has

	Fill *cell.FillState `json:"fill,omitempty"` // memory is missing yet
	Lost string          `json:"lost,omitempty"` // memory that could not be read, since the last restore
}

// Enter changes the state.
func (r *Record) Enter(state State) {
	r.Age.enter(r.State, state)
	r.State = state
}

// Dir is a directory of records.
type Dir string

// Path is where the record of an instance lies.
func (d Dir) Path(id string) string { return filepath.Join(string(d), id+".json") }

// Save writes the record of an instance, as a whole or not at all.
func (d Dir) Save(id string, r *Record, cfg *config.Config) error {
	r.Schema, r.ID, r.Config = schema, id, cfg.Text()
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("record of %s: %w", id, err)
	}
	path := d.Path(id)
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Load reads a record and the configuration in it.
func (d Dir) Load(id string) (r Record, cfg *config.Config, err error) {
	path := d.Path(id)
	data, err := os.ReadFile(path)
	if err != nil {
		return r, nil, err
	}
	if err = json.Unmarshal(data, &r); err == nil && r.Schema != schema {
		err = fmt.Errorf("schema %d is not %d", r.Schema, schema)
	}
	if err == nil {
		cfg, err = config.Parse(path, strings.NewReader(r.Config))
	}
	if err != nil {
		return r, nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, cfg, nil
}

// IDs lists the instances that have a record.
func (d Dir) IDs() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && config.ValidName(id) == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Saved says where the memory of an instance is since its host went down.
type Saved struct {
	File   string `json:"file"`
	Resume bool   `json:"resume"` // it ran, and is to run again
	Keep   bool   `json:"keep"`   // the file stays when the instance has been restored
}

// Advice says how to go on with what was saved.
func (s Saved) Advice(id string) string {
	resume := ""
	if s.Resume {
		resume = " --resume"
	}
	return fmt.Sprintf("go on with 'vpsctl restore%s %s %s', or give that memory up with 'vpsctl rm %s'", resume, id, s.File, id)
}
