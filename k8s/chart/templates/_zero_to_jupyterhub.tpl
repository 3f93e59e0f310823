{{/* What zero-to-jupyterhub calls `singleuser`, as KubeSpawner's options, and those as our profiles. */}}

{{/* Adds `text` to the list of what is wrong with the values. */}}
{{- define "mlhub.problem" -}}
{{- $_ := set .problems "texts" (append .problems.texts .text) -}}
{{- end -}}

{{/* {"value": what stands at the dotted `path` in `in`}; null or nothing where there is none. */}}
{{- define "mlhub.at" -}}
{{- $value := .in -}}
{{- range splitList "." .path -}}
  {{- if kindIs "map" $value -}}{{- $value = get $value . -}}{{- else -}}{{- $value = "" -}}{{- end -}}
{{- end -}}
{{- dict "value" $value | toJson -}}
{{- end -}}

{{/* A list of names, whether they stand there plainly or as {name: ...}. */}}
{{- define "mlhub.names" -}}
{{- $names := list -}}
{{- range . -}}{{- $names = append $names (ternary (get (ternary . dict (kindIs "map" .)) "name") . (kindIs "map" .)) -}}{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* KubeSpawner's options that all profiles begin with. */}}
{{- define "mlhub.z2jh.traits" -}}
{{- $given := . -}}
{{- $traits := dict -}}
{{- range $trait, $path := dict
    "cmd" "singleuser.cmd"
    "uid" "singleuser.uid" "fs_gid" "singleuser.fsGid"
    "allow_privilege_escalation" "singleuser.allowPrivilegeEscalation"
    "cpu_limit" "singleuser.cpu.limit" "cpu_guarantee" "singleuser.cpu.guarantee"
    "mem_limit" "singleuser.memory.limit" "mem_guarantee" "singleuser.memory.guarantee"
    "extra_resource_limits" "singleuser.extraResource.limits"
    "extra_resource_guarantees" "singleuser.extraResource.guarantees"
    "node_selector" "singleuser.nodeSelector"
    "node_affinity_required" "singleuser.extraNodeAffinity.required"
    "node_affinity_preferred" "singleuser.extraNodeAffinity.preferred"
    "pod_affinity_required" "singleuser.extraPodAffinity.required"
    "pod_affinity_preferred" "singleuser.extraPodAffinity.preferred"
    "pod_anti_affinity_required" "singleuser.extraPodAntiAffinity.required"
    "pod_anti_affinity_preferred" "singleuser.extraPodAntiAffinity.preferred"
    "start_timeout" "singleuser.startTimeout"
    "service_account" "singleuser.serviceAccountName"
    "extra_labels" "singleuser.extraLabels" "extra_annotations" "singleuser.extraAnnotations"
    "init_containers" "singleuser.initContainers"
    "home" "singleuser.storage.homeMountPath"
    "storage_capacity" "singleuser.storage.capacity"
    "storage_class" "singleuser.storage.dynamic.storageClass"
    "storage_access_modes" "singleuser.storage.dynamic.storageAccessModes"
    "volumes" "singleuser.storage.extraVolumes" "volume_mounts" "singleuser.storage.extraVolumeMounts" -}}
  {{- $value := (include "mlhub.at" (dict "in" $given.Values "path" $path) | fromJson).value -}}
  {{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) -}}{{- $_ := set $traits $trait $value -}}{{- end -}}
{{- end -}}
{{- with $given.Values.singleuser.image -}}
  {{- if .name -}}{{- $_ := set $traits "image" (ternary .name (printf "%s:%s" .name (toString .tag)) (empty .tag)) -}}{{- end -}}
{{- end -}}
{{- $secrets := concat ($given.Values.imagePullSecrets | default list) (dig "image" "pullSecrets" list $given.Values.singleuser | default list) -}}
{{- $_ := set $traits "image_pull_secrets" (include "mlhub.names" $secrets | fromJsonArray | uniq) -}}
{{- $scheduling := dig "userPods" dict ($given.Values.scheduling | default dict) -}}
{{- $_ := set $traits "tolerations" (concat ($scheduling.tolerations | default list) ($given.Values.singleuser.extraTolerations | default list)) -}}
{{- $purpose := dig "nodeAffinity" "matchNodePurpose" "ignore" $scheduling -}}
{{- if ne $purpose "ignore" -}}
  {{- $term := dict "matchExpressions" (list (dict "key" "hub.jupyter.org/node-purpose" "operator" "In" "values" (list "user"))) -}}
  {{- if eq $purpose "require" -}}
    {{- $_ := set $traits "node_affinity_required" (append (get $traits "node_affinity_required" | default list) $term) -}}
  {{- else -}}
    {{- $_ := set $traits "node_affinity_preferred" (append (get $traits "node_affinity_preferred" | default list) (dict "weight" 100 "preference" $term)) -}}
  {{- end -}}
{{- end -}}
{{- toJson $traits -}}
{{- end -}}

{{/* A size for our profiles: there a bare number counts GB, with JupyterHub it counts bytes. */}}
{{- define "mlhub.z2jh.size" -}}
{{- if regexMatch "^[0-9]+(\\.[0-9]+)?(e\\+?[0-9]+)?$" (toString .) -}}{{- printf "%.4fK" (divf (float64 .) 1024.0) -}}
{{- else -}}{{- toString . -}}{{- end -}}
{{- end -}}

{{/* A pod's `affinity` from KubeSpawner's six lists. */}}
{{- define "mlhub.z2jh.affinity" -}}
{{- $affinity := dict -}}
{{- $node := dict -}}
{{- with .node_affinity_required -}}{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" .) -}}{{- end -}}
{{- with .node_affinity_preferred -}}{{- $_ := set $node "preferredDuringSchedulingIgnoredDuringExecution" . -}}{{- end -}}
{{- with $node -}}{{- $_ := set $affinity "nodeAffinity" . -}}{{- end -}}
{{- $traits := . -}}
{{- range $kind, $trait := dict "podAffinity" "pod_affinity" "podAntiAffinity" "pod_anti_affinity" -}}
  {{- $rules := dict -}}
  {{- with get $traits (printf "%s_required" $trait) -}}{{- $_ := set $rules "requiredDuringSchedulingIgnoredDuringExecution" . -}}{{- end -}}
  {{- with get $traits (printf "%s_preferred" $trait) -}}{{- $_ := set $rules "preferredDuringSchedulingIgnoredDuringExecution" . -}}{{- end -}}
  {{- with $rules -}}{{- $_ := set $affinity $kind . -}}{{- end -}}
{{- end -}}
{{- toJson $affinity -}}
{{- end -}}

{{/* {"volumes": shared ones, "shm": size of /dev/shm} of KubeSpawner's `volumes` and `volume_mounts`. */}}
{{- define "mlhub.z2jh.volumes" -}}
{{- $traits := .traits -}}
{{- $problems := .problems -}}
{{- $where := .where -}}
{{- $by_name := dict -}}
{{- range $volume := ternary (values (ternary $traits.volumes dict (kindIs "map" $traits.volumes))) ($traits.volumes | default list) (kindIs "map" $traits.volumes) -}}
  {{- $_ := set $by_name $volume.name $volume -}}
{{- end -}}
{{- $mounts := $traits.volume_mounts | default list -}}
{{- if kindIs "map" $mounts -}}
  {{- $by_key := $mounts -}}
  {{- $mounts = list -}}
  {{- range $key := keys $by_key | sortAlpha -}}{{- $mounts = append $mounts (get $by_key $key) -}}{{- end -}}
{{- end -}}
{{- $shared := list -}}
{{- $shm := "" -}}
{{- range $mount := $mounts -}}
  {{- $volume := get $by_name $mount.name | default dict -}}
  {{- $target := dict "target" $mount.mountPath "read_only" (or $mount.readOnly false) -}}
  {{- $empty := $volume.emptyDir | default dict -}}
  {{- if or $mount.subPath $mount.subPathExpr -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "%s: the mount at %s has a subPath; a shared volume is mounted whole" $where $mount.mountPath)) -}}
  {{- else if and (eq (toString $empty.medium) "Memory") (eq $mount.mountPath "/dev/shm") -}}
    {{- $shm = $empty.sizeLimit | default $traits.mem_limit | default "" -}}
    {{- if not $shm -}}
      {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "%s: the volume at /dev/shm needs a sizeLimit where memory has no limit" $where)) -}}
    {{- end -}}
  {{- else if $volume.persistentVolumeClaim -}}
    {{- $_ := set $target "read_only" (or $mount.readOnly $volume.persistentVolumeClaim.readOnly false) -}}
    {{- $shared = append $shared (merge (dict "source" $volume.persistentVolumeClaim.claimName) $target) -}}
  {{- else if $volume.nfs -}}
    {{- $_ := set $target "read_only" (or $mount.readOnly $volume.nfs.readOnly false) -}}
    {{- $shared = append $shared (merge (dict "source" (printf "nfs://%s%s" $volume.nfs.server $volume.nfs.path)) $target) -}}
  {{- else -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "%s: the volume at %s is none of persistentVolumeClaim, nfs and memory for /dev/shm, which are what a workspace can have" $where $mount.mountPath)) -}}
  {{- end -}}
{{- end -}}
{{- dict "volumes" $shared "shm" $shm | toJson -}}
{{- end -}}

{{/* One of our profiles from KubeSpawner's options `traits`; `entry` is its place in the list of profiles. */}}
{{- define "mlhub.z2jh.profile" -}}
{{- $traits := .traits -}}
{{- $problems := .problems -}}
{{- $where := .where -}}
{{- /* Without a resource of that kind, KubeSpawner gives no GPU. */ -}}
{{- $profile := dict "name" .name "image" ($traits.image | default .image) "max_gpus" 0 -}}
{{- $cluster := dict -}}
{{- with .entry.display_name -}}{{- $_ := set $profile "display_name" . -}}{{- end -}}
{{- with .entry.description -}}{{- $_ := set $profile "description" (trim .) -}}{{- end -}}
{{- with $traits.home -}}{{- $_ := set $profile "home" . -}}{{- end -}}
{{- with $traits.port -}}{{- $_ := set $profile "port" . -}}{{- end -}}
{{- with $traits.cmd -}}{{- $_ := set $profile "command" (ternary . (list .) (kindIs "slice" .)) -}}{{- end -}}
{{- with $traits.environment -}}
  {{- $env := dict -}}
  {{- range $name, $value := . -}}
    {{- if kindIs "map" $value -}}
      {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "%s.environment.%s: only a plain value can be given; workspaces read no Secrets" $where $name)) -}}
    {{- else if regexMatch "^(JUPYTERHUB_|JPY_|MLHUB_)" $name -}}
      {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "%s.environment.%s: the hub sets variables of that kind; singleuser.extraEnv may, for all profiles" $where $name)) -}}
    {{- else if not (kindIs "invalid" $value) -}}
      {{- $_ := set $env $name (include "mlhub.text" $value) -}}
    {{- end -}}
  {{- end -}}
  {{- $_ := set $profile "env" $env -}}
{{- end -}}
{{- with $traits.cpu_limit -}}{{- $_ := set $profile "default_cpu" . -}}{{- $_ := set $profile "max_cpu" . -}}{{- end -}}
{{- with $traits.cpu_guarantee -}}{{- $_ := set $cluster "cpu_request" . -}}{{- end -}}
{{- with $traits.mem_limit -}}
  {{- $size := include "mlhub.z2jh.size" . -}}
  {{- $_ := set $profile "default_mem" $size -}}{{- $_ := set $profile "max_mem" $size -}}
{{- end -}}
{{- with $traits.mem_guarantee -}}{{- $_ := set $cluster "mem_request" (include "mlhub.z2jh.size" .) -}}{{- end -}}
{{- with $traits.extra_resource_limits -}}
  {{- if gt (len .) 1 -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "%s.extra_resource_limits: a profile gives one kind of GPU, not %s" $where (keys . | sortAlpha | join ", "))) -}}
  {{- end -}}
  {{- range $resource, $count := . -}}
    {{- $_ := set $cluster "gpu_resource" $resource -}}
    {{- $_ := set $profile "max_gpus" (int $count) -}}
  {{- end -}}
{{- end -}}
{{- with $traits.extra_resource_guarantees -}}
  {{- if ne (toJson .) (toJson $traits.extra_resource_limits) -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "%s.extra_resource_guarantees: must be the limits; Kubernetes gives GPUs in no other way" $where)) -}}
  {{- end -}}
{{- end -}}
{{- if hasKey $traits "uid" -}}
  {{- if not (kindIs "invalid" $traits.uid) -}}
    {{- $_ := set $profile "user" (ternary (printf "%d" (int $traits.uid)) (printf "%d:%d" (int $traits.uid) (int $traits.gid)) (kindIs "invalid" $traits.gid)) -}}
    {{- if eq (int $traits.uid) 0 -}}{{- $_ := set $cluster "run_as_non_root" false -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- if hasKey $traits "fs_gid" -}}{{- $_ := set $cluster "fs_group" $traits.fs_gid -}}{{- end -}}
{{- if $traits.allow_privilege_escalation -}}{{- $_ := set $profile "privilege_escalation" true -}}{{- end -}}
{{- with $traits.start_timeout -}}{{- $_ := set $profile "start_timeout" . -}}{{- end -}}
{{- range $field, $trait := dict
    "node_selector" "node_selector" "image_pull_secrets" "image_pull_secrets" "service_account" "service_account"
    "priority_class" "priority_class_name" "labels" "extra_labels" "annotations" "extra_annotations"
    "init_containers" "init_containers" "storage_class" "storage_class" -}}
  {{- with get $traits $trait -}}{{- $_ := set $cluster $field . -}}{{- end -}}
{{- end -}}
{{- with $traits.storage_capacity -}}{{- $_ := set $cluster "volume_size" (include "mlhub.z2jh.size" .) -}}{{- end -}}
{{- with $traits.storage_access_modes -}}
  {{- if gt (len .) 1 -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "%s.storage_access_modes: a volume has one" $where)) -}}
  {{- end -}}
  {{- $_ := set $cluster "access_mode" (first .) -}}
{{- end -}}
{{- with $traits.tolerations -}}
  {{- $tolerations := list -}}
  {{- range . -}}
    {{- $toleration := omit . "tolerationSeconds" -}}
    {{- if hasKey . "tolerationSeconds" -}}{{- $_ := set $toleration "toleration_seconds" .tolerationSeconds -}}{{- end -}}
    {{- $tolerations = append $tolerations $toleration -}}
  {{- end -}}
  {{- $_ := set $cluster "tolerations" $tolerations -}}
{{- end -}}
{{- with include "mlhub.z2jh.affinity" $traits | fromJson -}}{{- $_ := set $cluster "affinity" . -}}{{- end -}}
{{- $volumes := include "mlhub.z2jh.volumes" (dict "traits" $traits "problems" $problems "where" $where) | fromJson -}}
{{- with $volumes.volumes -}}{{- $_ := set $profile "volumes" . -}}{{- end -}}
{{- with $volumes.shm -}}
  {{- $size := include "mlhub.z2jh.size" . -}}
  {{- $_ := set $profile "default_shm" $size -}}{{- $_ := set $profile "max_shm" $size -}}
{{- end -}}
{{- with $cluster -}}{{- $_ := set $profile "kubernetes" . -}}{{- end -}}
{{- toJson $profile -}}
{{- end -}}

{{/* What a profile may override: the options above that KubeSpawner has, too. */}}
{{- define "mlhub.z2jh.overrides" -}}
image cmd uid gid fs_gid port allow_privilege_escalation cpu_limit cpu_guarantee mem_limit mem_guarantee extra_resource_limits extra_resource_guarantees node_selector tolerations node_affinity_required node_affinity_preferred pod_affinity_required pod_affinity_preferred pod_anti_affinity_required pod_anti_affinity_preferred environment start_timeout service_account priority_class_name image_pull_secrets extra_labels extra_annotations init_containers storage_capacity storage_class storage_access_modes volumes volume_mounts
{{- end -}}

{{/* Our profiles for `singleuser`, as a JSON array. */}}
{{- define "mlhub.z2jh.profiles" -}}
{{- $root := .root -}}
{{- $problems := .problems -}}
{{- $image := include "mlhub.image" (dict "root" $root "name" "mlhub-workspace") -}}
{{- $entries := $root.Values.singleuser.profileList | default list -}}
{{- if kindIs "map" $entries -}}
  {{- $by_slug := $entries -}}
  {{- $entries = list -}}
  {{- range $slug := keys $by_slug | sortAlpha -}}{{- $entries = append $entries (merge (dict) (get $by_slug $slug) (dict "slug" $slug)) -}}{{- end -}}
{{- end -}}
{{- $default := list -}}
{{- $others := list -}}
{{- $names := list -}}
{{- range $index, $entry := $entries | default (list (dict "slug" "default")) -}}
  {{- $where := ternary (printf "singleuser.profileList[%d].kubespawner_override" $index) "singleuser" (not (empty $entries)) -}}
  {{- $traits := include "mlhub.z2jh.traits" $root | fromJson -}}
  {{- range $key := keys (omit $entry "display_name" "slug" "description" "default" "kubespawner_override") | sortAlpha -}}
    {{- $why := ternary "write one profile for each choice" "no such thing is known here" (eq $key "profile_options") -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "singleuser.profileList[%d].%s: %s" $index $key $why)) -}}
  {{- end -}}
  {{- range $trait, $value := $entry.kubespawner_override | default dict -}}
    {{- if not (has $trait (include "mlhub.z2jh.overrides" nil | splitList " ")) -}}
      {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "%s.%s: not known here; the chart's README lists what a profile may override, and our own `profiles` have more" $where $trait)) -}}
    {{- else if and (kindIs "map" $value) (kindIs "map" (get $traits $trait)) -}}
      {{- $_ := set $traits $trait (mergeOverwrite (get $traits $trait) $value) -}}
    {{- else -}}
      {{- $_ := set $traits $trait $value -}}
    {{- end -}}
  {{- end -}}
  {{- $name := $entry.slug | default $entry.display_name | default "" | lower | regexFind "[a-z0-9].*" -}}
  {{- $name = regexReplaceAll "[^a-z0-9]+" $name "-" | trunc 63 | trimSuffix "-" -}}
  {{- if or (not $name) (has $name $names) -}}
    {{- include "mlhub.problem" (dict "problems" $problems "text" (printf "singleuser.profileList[%d]: needs a slug of its own, not %q" $index $name)) -}}
  {{- end -}}
  {{- $names = append $names $name -}}
  {{- $profile := include "mlhub.z2jh.profile" (dict "traits" $traits "problems" $problems "where" $where "name" $name "entry" $entry "image" $image) | fromJson -}}
  {{- if $entry.default -}}{{- $default = append $default $profile -}}{{- else -}}{{- $others = append $others $profile -}}{{- end -}}
{{- end -}}
{{- toJson (concat $default $others) -}}
{{- end -}}
