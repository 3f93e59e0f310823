{{/* One of our images by its `name`. */}}
{{- define "mlhub.image" -}}
{{- $images := .root.Values.images -}}
{{- with $images.registry -}}{{ trimSuffix "/" . }}/{{- end -}}
{{- .name }}:{{ $images.tag | default .root.Chart.AppVersion -}}
{{- end -}}
