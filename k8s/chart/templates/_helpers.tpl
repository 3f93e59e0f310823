{{/* What every object has; nothing selects by more than app.kubernetes.io/name. */}}
{{- define "mlhub.labels" -}}
app.kubernetes.io/part-of: mlhub
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* A value as text. Numbers come as floats, whose own words for a million are 1e+06. */}}
{{- define "mlhub.text" -}}
{{- if kindIs "float64" . -}}{{- if eq . (floor .) -}}{{- printf "%.0f" . -}}{{- else -}}{{- toString . -}}{{- end -}}
{{- else -}}{{- toString . -}}{{- end -}}
{{- end -}}

{{/* One of our images by its `name`; `tag` where it is not the one of all. */}}
{{- define "mlhub.image" -}}
{{- $images := .root.Values.images -}}
{{- with $images.registry -}}{{ trimSuffix "/" . }}/{{- end -}}
{{- .name }}:{{ .tag | default $images.tag -}}
{{- end -}}

{{/* Of a pod that reads these configurations: it starts again when one of them has changed. */}}
{{- define "mlhub.checksums" -}}
{{- $context := dict "root" .root "problems" (dict "texts" list) -}}
{{- $sums := list -}}
{{- range .of -}}
  {{- $sums = append $sums (printf "checksum/%s: %s" . (include (printf "mlhub.%s" .) $context | sha256sum)) -}}
{{- end -}}
{{- join "\n" $sums -}}
{{- end -}}

{{/* Where a service's pods run, and who may fetch their images. `of`: the service's values; `affinity`: its own. */}}
{{- define "mlhub.placement" -}}
{{- $spec := dict -}}
{{- with concat (.root.Values.imagePullSecrets | default list) (dig "image" "pullSecrets" list (ternary .of dict (kindIs "map" .of.image)) | default list) -}}
  {{- $secrets := list -}}
  {{- range include "mlhub.names" . | fromJsonArray | uniq -}}{{- $secrets = append $secrets (dict "name" .) -}}{{- end -}}
  {{- $_ := set $spec "imagePullSecrets" $secrets -}}
{{- end -}}
{{- with .of.nodeSelector -}}{{- $_ := set $spec "nodeSelector" . -}}{{- end -}}
{{- $core := dig "corePods" dict (.root.Values.scheduling | default dict) | default dict -}}
{{- with concat (.of.tolerations | default list) ($core.tolerations | default list) -}}{{- $_ := set $spec "tolerations" . -}}{{- end -}}
{{- $affinity := deepCopy (.affinity | default dict) -}}
{{- $term := dict "matchExpressions" (list (dict "key" "hub.jupyter.org/node-purpose" "operator" "In" "values" (list "core"))) -}}
{{- $purpose := dig "nodeAffinity" "matchNodePurpose" "ignore" $core -}}
{{- if eq $purpose "require" -}}
  {{- $_ := set $affinity "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" (list $term))) -}}
{{- else if eq $purpose "prefer" -}}
  {{- $_ := set $affinity "nodeAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "preference" $term))) -}}
{{- end -}}
{{- with $affinity -}}{{- $_ := set $spec "affinity" . -}}{{- end -}}
{{- with $spec -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/* Of a service with several pods: over as many nodes as there are, a release by itself while it takes over. */}}
{{- define "mlhub.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {app.kubernetes.io/part-of: mlhub}
    matchLabelKeys: [app.kubernetes.io/name, pod-template-hash]
{{- end -}}

{{/* How a Service of `type` is reached from outside the cluster. */}}
{{- define "mlhub.serviceOptions" -}}
{{- $spec := pick .service "loadBalancerIP" "loadBalancerSourceRanges" "externalIPs" -}}
{{- range $key, $value := $spec -}}{{- if not $value -}}{{- $spec = omit $spec $key -}}{{- end -}}{{- end -}}
{{- if ne .type "ClusterIP" -}}{{- $_ := set $spec "type" .type -}}{{- end -}}
{{- /* Limits and locks count by the addresses of clients, which would else be those of nodes. */ -}}
{{- if eq .type "LoadBalancer" -}}{{- $_ := set $spec "externalTrafficPolicy" "Local" -}}{{- end -}}
{{- with $spec -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/* How people come in: as it is said, else by the ingress, else by a port of the nodes. */}}
{{- define "mlhub.proxy.serviceType" -}}
{{- .Values.proxy.service.type | default (ternary "ClusterIP" "NodePort" .Values.ingress.enabled) -}}
{{- end -}}

{{/* Up at once, down slowly: one that goes breaks the connections that it holds. */}}
{{- define "mlhub.autoscaler" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .name }}
  labels: {{- include "mlhub.labels" .root | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ .name }}}
  minReplicas: {{ .autoscaling.minReplicas }}
  maxReplicas: {{ .autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: AverageValue, averageValue: {{ .autoscaling.averageCpu | quote }}}}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 1800
      policies:
        - {type: Pods, value: 1, periodSeconds: 600}
{{- end -}}

{{/* The hub's additional variables, by name or as a list. */}}
{{- define "mlhub.hub.extraEnv" -}}
{{- $env := list -}}
{{- with .Values.hub.extraEnv -}}
  {{- if kindIs "slice" . -}}
    {{- $env = . -}}
  {{- else -}}
    {{- range $name, $value := . -}}
      {{- if kindIs "map" $value -}}{{- $env = append $env (merge (dict "name" ($value.name | default $name)) $value) -}}
      {{- else if not (kindIs "invalid" $value) -}}{{- $env = append $env (dict "name" $name "value" (include "mlhub.text" $value)) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if .Values.hub.db.password -}}
  {{- $env = append $env (dict "name" "PGPASSWORD" "valueFrom" (dict "secretKeyRef" (dict "name" "hub-database" "key" "PGPASSWORD"))) -}}
{{- end -}}
{{- with $env -}}{{- toYaml . -}}{{- end -}}
{{- end -}}
