//! The name of every resource that is served by default, as a constant.
//!
//! Owns: one `ResourceId` a resource, in the version its objects are stored in; the constant is the plural in capitals.
//! Called by: every client of the API: components, controllers, the CLI.
//! Never: says anything else about a resource; that is `registry`.

use crate::ResourceId;

// core
pub const BINDINGS: ResourceId = ResourceId::new("", "v1", "bindings");
pub const COMPONENTSTATUSES: ResourceId = ResourceId::new("", "v1", "componentstatuses");
pub const CONFIGMAPS: ResourceId = ResourceId::new("", "v1", "configmaps");
pub const ENDPOINTS: ResourceId = ResourceId::new("", "v1", "endpoints");
pub const EVENTS: ResourceId = ResourceId::new("", "v1", "events");
pub const LIMITRANGES: ResourceId = ResourceId::new("", "v1", "limitranges");
pub const NAMESPACES: ResourceId = ResourceId::new("", "v1", "namespaces");
pub const NODES: ResourceId = ResourceId::new("", "v1", "nodes");
pub const PERSISTENTVOLUMECLAIMS: ResourceId = ResourceId::new("", "v1", "persistentvolumeclaims");
pub const PERSISTENTVOLUMES: ResourceId = ResourceId::new("", "v1", "persistentvolumes");
pub const PODS: ResourceId = ResourceId::new("", "v1", "pods");
pub const PODTEMPLATES: ResourceId = ResourceId::new("", "v1", "podtemplates");
pub const REPLICATIONCONTROLLERS: ResourceId = ResourceId::new("", "v1", "replicationcontrollers");
pub const RESOURCEQUOTAS: ResourceId = ResourceId::new("", "v1", "resourcequotas");
pub const SECRETS: ResourceId = ResourceId::new("", "v1", "secrets");
pub const SERVICEACCOUNTS: ResourceId = ResourceId::new("", "v1", "serviceaccounts");
pub const SERVICES: ResourceId = ResourceId::new("", "v1", "services");

// apiregistration.k8s.io
pub const APISERVICES: ResourceId = ResourceId::new("apiregistration.k8s.io", "v1", "apiservices");

// apps
pub const CONTROLLERREVISIONS: ResourceId = ResourceId::new("apps", "v1", "controllerrevisions");
pub const DAEMONSETS: ResourceId = ResourceId::new("apps", "v1", "daemonsets");
pub const DEPLOYMENTS: ResourceId = ResourceId::new("apps", "v1", "deployments");
pub const REPLICASETS: ResourceId = ResourceId::new("apps", "v1", "replicasets");
pub const STATEFULSETS: ResourceId = ResourceId::new("apps", "v1", "statefulsets");

// events.k8s.io
/// The same objects as [`EVENTS`], in their newer shape.
pub const EVENTS_K8S_IO: ResourceId = ResourceId::new("events.k8s.io", "v1", "events");

// authentication.k8s.io
pub const SELFSUBJECTREVIEWS: ResourceId = ResourceId::new("authentication.k8s.io", "v1", "selfsubjectreviews");
pub const TOKENREVIEWS: ResourceId = ResourceId::new("authentication.k8s.io", "v1", "tokenreviews");

// authorization.k8s.io
pub const LOCALSUBJECTACCESSREVIEWS: ResourceId =
    ResourceId::new("authorization.k8s.io", "v1", "localsubjectaccessreviews");
pub const SELFSUBJECTACCESSREVIEWS: ResourceId =
    ResourceId::new("authorization.k8s.io", "v1", "selfsubjectaccessreviews");
pub const SELFSUBJECTRULESREVIEWS: ResourceId =
    ResourceId::new("authorization.k8s.io", "v1", "selfsubjectrulesreviews");
pub const SUBJECTACCESSREVIEWS: ResourceId = ResourceId::new("authorization.k8s.io", "v1", "subjectaccessreviews");

// autoscaling
pub const HORIZONTALPODAUTOSCALERS: ResourceId = ResourceId::new("autoscaling", "v2", "horizontalpodautoscalers");

// batch
pub const CRONJOBS: ResourceId = ResourceId::new("batch", "v1", "cronjobs");
pub const JOBS: ResourceId = ResourceId::new("batch", "v1", "jobs");

// certificates.k8s.io
pub const CERTIFICATESIGNINGREQUESTS: ResourceId =
    ResourceId::new("certificates.k8s.io", "v1", "certificatesigningrequests");
pub const CLUSTERTRUSTBUNDLES: ResourceId = ResourceId::new("certificates.k8s.io", "v1", "clustertrustbundles");
pub const PODCERTIFICATEREQUESTS: ResourceId = ResourceId::new("certificates.k8s.io", "v1", "podcertificaterequests");

// networking.k8s.io
pub const INGRESSCLASSES: ResourceId = ResourceId::new("networking.k8s.io", "v1", "ingressclasses");
pub const INGRESSES: ResourceId = ResourceId::new("networking.k8s.io", "v1", "ingresses");
pub const IPADDRESSES: ResourceId = ResourceId::new("networking.k8s.io", "v1", "ipaddresses");
pub const NETWORKPOLICIES: ResourceId = ResourceId::new("networking.k8s.io", "v1", "networkpolicies");
pub const SERVICECIDRS: ResourceId = ResourceId::new("networking.k8s.io", "v1", "servicecidrs");

// policy
pub const PODDISRUPTIONBUDGETS: ResourceId = ResourceId::new("policy", "v1", "poddisruptionbudgets");

// rbac.authorization.k8s.io
pub const CLUSTERROLEBINDINGS: ResourceId = ResourceId::new("rbac.authorization.k8s.io", "v1", "clusterrolebindings");
pub const CLUSTERROLES: ResourceId = ResourceId::new("rbac.authorization.k8s.io", "v1", "clusterroles");
pub const ROLEBINDINGS: ResourceId = ResourceId::new("rbac.authorization.k8s.io", "v1", "rolebindings");
pub const ROLES: ResourceId = ResourceId::new("rbac.authorization.k8s.io", "v1", "roles");

// storage.k8s.io
pub const CSIDRIVERS: ResourceId = ResourceId::new("storage.k8s.io", "v1", "csidrivers");
pub const CSINODES: ResourceId = ResourceId::new("storage.k8s.io", "v1", "csinodes");
pub const CSISTORAGECAPACITIES: ResourceId = ResourceId::new("storage.k8s.io", "v1", "csistoragecapacities");
pub const STORAGECLASSES: ResourceId = ResourceId::new("storage.k8s.io", "v1", "storageclasses");
pub const VOLUMEATTACHMENTS: ResourceId = ResourceId::new("storage.k8s.io", "v1", "volumeattachments");
pub const VOLUMEATTRIBUTESCLASSES: ResourceId = ResourceId::new("storage.k8s.io", "v1", "volumeattributesclasses");

// admissionregistration.k8s.io
pub const MUTATINGADMISSIONPOLICIES: ResourceId =
    ResourceId::new("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies");
pub const MUTATINGADMISSIONPOLICYBINDINGS: ResourceId =
    ResourceId::new("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicybindings");
pub const MUTATINGWEBHOOKCONFIGURATIONS: ResourceId =
    ResourceId::new("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations");
pub const VALIDATINGADMISSIONPOLICIES: ResourceId =
    ResourceId::new("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies");
pub const VALIDATINGADMISSIONPOLICYBINDINGS: ResourceId =
    ResourceId::new("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings");
pub const VALIDATINGWEBHOOKCONFIGURATIONS: ResourceId =
    ResourceId::new("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations");

// apiextensions.k8s.io
pub const CUSTOMRESOURCEDEFINITIONS: ResourceId =
    ResourceId::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");

// scheduling.k8s.io
pub const PRIORITYCLASSES: ResourceId = ResourceId::new("scheduling.k8s.io", "v1", "priorityclasses");

// coordination.k8s.io
pub const LEASES: ResourceId = ResourceId::new("coordination.k8s.io", "v1", "leases");

// node.k8s.io
pub const RUNTIMECLASSES: ResourceId = ResourceId::new("node.k8s.io", "v1", "runtimeclasses");

// discovery.k8s.io
pub const ENDPOINTSLICES: ResourceId = ResourceId::new("discovery.k8s.io", "v1", "endpointslices");

// resource.k8s.io
pub const DEVICECLASSES: ResourceId = ResourceId::new("resource.k8s.io", "v1", "deviceclasses");
pub const DEVICETAINTRULES: ResourceId = ResourceId::new("resource.k8s.io", "v1", "devicetaintrules");
pub const RESOURCECLAIMS: ResourceId = ResourceId::new("resource.k8s.io", "v1", "resourceclaims");
pub const RESOURCECLAIMTEMPLATES: ResourceId = ResourceId::new("resource.k8s.io", "v1", "resourceclaimtemplates");
pub const RESOURCESLICES: ResourceId = ResourceId::new("resource.k8s.io", "v1", "resourceslices");

// flowcontrol.apiserver.k8s.io
pub const FLOWSCHEMAS: ResourceId = ResourceId::new("flowcontrol.apiserver.k8s.io", "v1", "flowschemas");
pub const PRIORITYLEVELCONFIGURATIONS: ResourceId =
    ResourceId::new("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations");

// storagemigration.k8s.io
pub const STORAGEVERSIONMIGRATIONS: ResourceId =
    ResourceId::new("storagemigration.k8s.io", "v1", "storageversionmigrations");
