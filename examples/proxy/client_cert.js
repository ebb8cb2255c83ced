// The value of Client-Cert (RFC 9440): the DER of the client's certificate as base64 between two colons.
// nginx has the certificate as PEM, whose body is that very base64 in lines.

const pem = /^-----BEGIN CERTIFICATE-----([A-Za-z0-9+\/=\s]+)-----END CERTIFICATE-----\s*$/;

function client_cert(request) {
    const found = pem.exec(request.variables.ssl_client_raw_cert || '');
    // Empty: nginx then sends no such header, and the receiver refuses the request.
    return found ? ':' + found[1].replace(/\s/g, '') + ':' : '';
}

export default { client_cert };
