//! Keys of volumes: claims, what a pod shows of them, and where the content of ConfigMaps and Secrets goes.

use super::NO_API;
use crate::manifest::keys::{Section, no, unless, yes};

const NO_STORAGE: &str = "volumes are directories of this host, without a bound";

/// A PersistentVolumeClaim.
pub(in crate::manifest::kubernetes) const CLAIM: Section = Section {
    name: "the claim's spec",
    keys: &[
        yes("accessModes"),
        no("resources", NO_STORAGE),
        no("storageClassName", NO_STORAGE),
        unless("volumeMode", &["Filesystem"], NO_STORAGE),
        no("volumeName", NO_STORAGE),
        no("selector", NO_STORAGE),
        no("dataSource", "the volume is empty at first"),
        no("dataSourceRef", "the volume is empty at first"),
        no("volumeAttributesClassName", NO_STORAGE),
    ],
};

/// One of `volumes`. Those not listed as honoured are plugins that have no meaning on one host.
pub(in crate::manifest::kubernetes) const VOLUME: Section = Section {
    name: "volumes",
    keys: &[
        yes("name"),
        yes("emptyDir"),
        yes("hostPath"),
        yes("configMap"),
        yes("secret"),
        yes("persistentVolumeClaim"),
        yes("projected"),
        no("downwardAPI", NOT_MOUNTED),
        no("ephemeral", NOT_MOUNTED),
        no("csi", NOT_MOUNTED),
        no("nfs", NOT_MOUNTED),
        no("iscsi", NOT_MOUNTED),
        no("fc", NOT_MOUNTED),
        no("image", NOT_MOUNTED),
        no("gitRepo", NOT_MOUNTED),
        no("awsElasticBlockStore", NOT_MOUNTED),
        no("azureDisk", NOT_MOUNTED),
        no("azureFile", NOT_MOUNTED),
        no("cephfs", NOT_MOUNTED),
        no("cinder", NOT_MOUNTED),
        no("flexVolume", NOT_MOUNTED),
        no("flocker", NOT_MOUNTED),
        no("gcePersistentDisk", NOT_MOUNTED),
        no("glusterfs", NOT_MOUNTED),
        no("photonPersistentDisk", NOT_MOUNTED),
        no("portworxVolume", NOT_MOUNTED),
        no("quobyte", NOT_MOUNTED),
        no("rbd", NOT_MOUNTED),
        no("scaleIO", NOT_MOUNTED),
        no("storageos", NOT_MOUNTED),
        no("vsphereVolume", NOT_MOUNTED),
    ],
};

const NOT_MOUNTED: &str = "an empty volume of the replica's own is mounted instead";

/// `emptyDir`.
pub(in crate::manifest::kubernetes) const EMPTY_DIR: Section =
    Section { name: "emptyDir", keys: &[yes("medium"), yes("sizeLimit")] };

/// `hostPath`.
pub(in crate::manifest::kubernetes) const HOST_PATH: Section = Section {
    name: "hostPath",
    keys: &[
        yes("path"),
        unless("type", &["", "Directory", "File", "Socket"], "the path is not made, and has to exist before"),
    ],
};

/// `configMap`, or one of `projected`.
pub(in crate::manifest::kubernetes) const CONTENT: Section = Section {
    name: "the volume",
    keys: &[
        yes("name"),
        yes("secretName"),
        yes("items"),
        yes("defaultMode"),
        unless("optional", &["false"], "it has to exist"),
    ],
};

/// One of `items`.
pub(in crate::manifest::kubernetes) const ITEM: Section =
    Section { name: "items", keys: &[yes("key"), yes("path"), yes("mode")] };

/// `persistentVolumeClaim`.
pub(in crate::manifest::kubernetes) const CLAIM_VOLUME: Section =
    Section { name: "persistentVolumeClaim", keys: &[yes("claimName"), yes("readOnly")] };

/// `projected`.
pub(in crate::manifest::kubernetes) const PROJECTED: Section =
    Section { name: "projected", keys: &[yes("sources"), yes("defaultMode")] };

/// One of `projected.sources`.
pub(in crate::manifest::kubernetes) const PROJECTED_SOURCE: Section = Section {
    name: "sources",
    keys: &[
        yes("configMap"),
        yes("secret"),
        no("downwardAPI", "it is not mounted"),
        no("serviceAccountToken", NO_API),
        no("clusterTrustBundle", NO_API),
        no("podCertificate", NO_API),
    ],
};
