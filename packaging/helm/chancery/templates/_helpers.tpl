{{- define "chancery.labels" -}}
app.kubernetes.io/name: chancery
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "chancery.selector" -}}
app.kubernetes.io/name: chancery
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "chancery.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- define "chancery.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
{{- end }}
{{- define "chancery.check" -}}
{{- if gt (int .Values.replicas) 1 }}
{{- if not .Values.authority.secret }}
{{- fail "replicas: more than one need authority.secret, from which each gets its copy of the authority's directory" }}
{{- end }}
{{- if .Values.storage.existingClaim }}
{{- fail "storage.existingClaim: one volume serves one server; set replicas to 1" }}
{{- end }}
{{- end }}
{{- end }}
